package journal

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// overflow takes in the stretch that was dropped before the consumer came to it:
// in its place stands a gap record for each source that missed something.
func (t *taking) overflow(lost *stretch) {
	c := t.c
	for _, source := range slices.Sorted(maps.Keys(lost.missed)) {
		if lost.missed[source] == 0 {
			continue
		}
		r := event.NewGap(event.Gap{
			Source:        source,
			Namespace:     c.j.namespace,
			Sink:          c.name,
			From:          c.positions[source],
			To:            lost.positions[source],
			Cause:         event.CauseOverflow,
			MissedAtLeast: lost.missed[source],
		})
		r.Position = lost.positions[source] // having told of it, the sink is past it
		t.gap(lost.until, r, lost.missed[source])
	}
	t.step(step{next: lost.until, others: maps.Clone(lost.positions)})
	c.positions = clonePositions(lost.positions)
	t.read = lost.until
}

// damage takes in the records up to an offset that are not there any more; next
// is the one behind them, if there is one. Whose they were cannot be told: in
// their place stands a gap record for each source.
func (t *taking) damage(until uint64, next *event.Record) {
	c, n := t.c, int(until-t.read)
	c.j.log.Error("a part of the journal is damaged or missing; what it held is lost",
		"sink", c.name, "segment", c.reader.segmentName(), "from_offset", t.read, "records", n)
	c.j.dropped(c.name, event.CauseDamage, n)

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
	for _, source := range slices.Sorted(maps.Keys(to)) {
		missed := 0
		if len(to) == 1 {
			missed = n
		}
		r := event.NewGap(event.Gap{
			Source:        source,
			Namespace:     c.j.namespace,
			Sink:          c.name,
			From:          c.positions[source],
			To:            to[source],
			Cause:         event.CauseDamage,
			MissedAtLeast: missed,
		})
		t.gap(until, r, missed)
	}
	t.step(step{next: until})
	t.read = until
}

// gap adds a gap record in the place of the last record before until.
func (t *taking) gap(until uint64, r event.Record, missed int) {
	t.visit(Entry{Offset: until - 1, Record: &r})
	t.entries++
	t.c.steps = append(t.c.steps, step{
		offset: until - 1, next: until, appended: time.Now().UnixNano(), source: r.Source, missed: missed,
	})
}

// drop moves a consumer past the records before an offset, as far as it has not
// read them, and keeps in the cursor what it will be told instead.
func (c *consumer) drop(until uint64) {
	c.reading.Lock()
	defer c.reading.Unlock()
	j := c.j
	j.mu.Lock()
	v, read := j.view(), c.read
	lost := &stretch{until: until, positions: clonePositions(c.cursor.positions), missed: make(map[string]int)}
	c.marks.applyFirst(c.marks.upTo(until-1), lost.positions)
	if before := c.cursor.lost; before != nil && before.until > read {
		// Not told of yet: one gap record will do for both.
		read = before.until
		maps.Copy(lost.missed, before.missed)
		maps.Copy(lost.positions, before.positions)
	}
	j.mu.Unlock()

	missed := c.passOver(v, read, lost)

	j.mu.Lock()
	c.cursor.lost = lost
	c.version++
	first := !c.dropping
	c.dropping = true
	j.mu.Unlock()

	j.dropped(c.name, event.CauseOverflow, missed)
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	j.log.Log(context.Background(), level, "the journal is full; the oldest records are dropped for a consumer that is behind",
		"sink", c.name, "records", missed)
}

// passOver reads the records from an offset up to the end of a stretch only to
// see what is missed. It returns how many records that are.
func (c *consumer) passOver(v view, read uint64, lost *stretch) (missed int) {
	source := ""
	for s := range lost.positions {
		source = s // of what cannot be read, the source cannot be told
	}
	for read < lost.until {
		f, err := c.reader.peek(v, read)
		if err != nil || f.offset >= lost.until {
			break
		}
		c.reader.advance()
		var r event.Record
		if f.offset < read || r.UnmarshalBinary(f.payload) != nil {
			continue
		}
		source = r.Source
		if holes := int(f.offset - read); holes > 0 {
			lost.missed[source] += holes
			missed += holes
		}
		read = f.after()
		if r.OnlySink != "" && r.OnlySink != c.name {
			continue
		}
		lost.positions[source] = r.Position
		if !f.position {
			lost.missed[source]++
			missed++
		}
	}
	if holes := int(lost.until - min(read, lost.until)); holes > 0 {
		lost.missed[source] += holes
		missed += holes
	}
	return missed
}
