package journal

import (
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// declareMissing visits gap records in the place of the records before an offset, which were
// dropped, are damaged or missing; next is the record that follows, if there is one.
func (n *nextCall) declareMissing(until uint64, next *event.Record) {
	if n.unread < n.dropped {
		n.declareGaps(min(until, n.dropped), next, event.CauseOverflow)
	}
	if n.unread == until {
		return
	}
	c, missed := n.c, int(until-n.unread)
	segment := ""
	if s := c.reader.Segment(); s != nil {
		segment = s.Name()
	}
	c.j.log.Error("records in the journal are damaged or missing; declaring a gap",
		"sink", c.name, "segment", segment, "from_offset", n.unread, "records", missed)
	c.j.onDrop(c.name, event.CauseDamage, missed)
	n.declareGaps(until, next, event.CauseDamage)
}

// declareGaps visits a gap record for each source, since the sources of missing records are not
// known: from the position of the consumer to that of the next record or, if that is of another
// source, to the tail. Only a single source has a number of missing records.
func (n *nextCall) declareGaps(until uint64, next *event.Record, cause event.Cause) {
	c := n.c
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
	missed := 0
	if len(to) == 1 {
		missed = int(until - n.unread)
	}
	for _, source := range slices.Sorted(maps.Keys(to)) {
		r := event.NewGap(event.Gap{
			Source:        source,
			Namespace:     c.j.namespace,
			Sink:          c.name,
			From:          c.positions[source],
			To:            to[source],
			Cause:         cause,
			MissedAtLeast: missed,
		})
		n.visit(Entry{Offset: until - 1, Record: &r})
		n.entries++
		c.steps = append(c.steps, step{offset: until - 1, next: until, appended: time.Now().UnixNano()})
	}
	n.unread = until
	n.skip()
}
