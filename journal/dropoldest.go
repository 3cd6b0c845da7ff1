package journal

import (
	"maps"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// dropOldest skips the records before an offset that the consumer has not read. Its cursor keeps the
// range, for which Next declares a gap.
func (c *Consumer) dropOldest(until uint64) {
	c.reading.Lock()
	defer c.reading.Unlock()
	j := c.j
	j.mu.Lock()
	log := j.committed
	d := &storage.DroppedRange{
		From: c.unread, Until: until,
		Positions: maps.Clone(c.cursor.Positions), Missed: make(map[string]int),
	}
	c.inflight.apply(until-1, d.Positions)
	from := c.unread
	if last := c.cursor.Dropped; last != nil && last.Until > from { // not declared yet
		from, d.From = last.Until, last.From
		maps.Copy(d.Missed, last.Missed)
		maps.Copy(d.Positions, last.Positions)
	}
	j.mu.Unlock()

	missed := c.countDropped(log, from, d)

	j.mu.Lock()
	c.cursor.Dropped = d
	c.version++
	first := !c.dropping
	c.dropping = true
	j.mu.Unlock()
	j.onDrop(c.name, event.CauseOverflow, missed)
	warnOnce(j.log, first, "journal is full; dropping the oldest records of a sink", "sink", c.name, "records", missed)
}

// countDropped adds the records from an offset on to the range that ends behind them, and returns
// their number. Records that cannot be read count for the source of the record before them.
func (c *Consumer) countDropped(log storage.Log, from uint64, d *storage.DroppedRange) (missed int) {
	source := ""
	for s := range d.Positions {
		source = s
	}
	count := func(n uint64) {
		d.Missed[source] += int(n)
		missed += int(n)
	}
	for from < d.Until {
		f, err := c.reader.Peek(log, from)
		if err != nil || f.Offset >= d.Until {
			break
		}
		c.reader.Advance()
		var r event.Record
		if f.Offset < from || r.UnmarshalBinary(f.Payload) != nil {
			continue
		}
		source = r.Source
		count(f.Offset - from)
		from = f.Next()
		if r.OnlySink != "" && r.OnlySink != c.name {
			continue
		}
		d.Positions[source] = r.Position
		if !f.PositionOnly {
			count(1)
		}
	}
	if from < d.Until {
		count(d.Until - from)
	}
	return missed
}
