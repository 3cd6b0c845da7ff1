package journal

import (
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// declareDropped visits gap records for a range that was dropped: one for each source with records
// in it. Of records that were in flight and must be read again, only the positions are known.
func (n *nextCall) declareDropped(d *storage.DroppedRange) {
	to := maps.Clone(d.Positions)
	maps.DeleteFunc(to, func(source string, p event.Position) bool {
		return d.Missed[source] == 0 && (n.unread >= d.From || p == n.c.positions[source])
	})
	n.declareGaps(d.Until, event.CauseOverflow, to, d.Missed)
	for source, p := range d.Positions {
		n.c.positions[source] = p
		n.c.steps = append(n.c.steps, step{next: d.Until, source: source, moves: true, position: p})
	}
}

// declareDamage visits gap records for the records before an offset, which are damaged or missing;
// next is the record that follows, if there is one. Their sources are unknown: each source has a
// gap record.
func (n *nextCall) declareDamage(until uint64, next *event.Record) {
	c, count := n.c, int(until-n.unread)
	segment := ""
	if s := c.reader.Segment(); s != nil {
		segment = s.Name()
	}
	c.j.log.Error("records in the journal are damaged or missing; declaring a gap",
		"sink", c.name, "segment", segment, "from_offset", n.unread, "records", count)
	c.j.onDrop(c.name, event.CauseDamage, count)

	c.j.mu.Lock()
	to := maps.Clone(c.j.tail)
	c.j.mu.Unlock()
	for source, p := range c.positions {
		if to[source].IsZero() {
			to[source] = p
		}
	}
	if next != nil {
		to[next.Source] = next.Position
	}
	missed := make(map[string]int)
	if len(to) == 1 {
		for source := range to {
			missed[source] = count
		}
	}
	n.declareGaps(until, event.CauseDamage, to, missed)
}

// declareGaps visits a gap record for each source, from the consumer's position to that in to, in
// the place of the records before an offset.
func (n *nextCall) declareGaps(until uint64, cause event.Cause, to map[string]event.Position, missed map[string]int) {
	c := n.c
	for _, source := range slices.Sorted(maps.Keys(to)) {
		r := event.NewGap(event.Gap{
			Source:        source,
			Namespace:     c.j.namespace,
			Sink:          c.name,
			From:          c.positions[source],
			To:            to[source],
			Cause:         cause,
			MissedAtLeast: missed[source],
		})
		if cause == event.CauseOverflow {
			r.Position = to[source] // once it is acknowledged
		}
		n.visit(Entry{Offset: until - 1, Record: &r})
		n.entries++
		c.steps = append(c.steps, step{offset: until - 1, next: until, appended: time.Now().UnixNano()})
	}
	n.unread = until
	n.skip()
}
