package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
)

// readRecords is how many records are taken from the journal at once.
const readRecords = 512

// arrival is what was read from the journal, in the memory of the one before.
type arrival struct {
	entries []found
	streams []byte // their names, one after the other
	err     error
}

type found struct {
	offset uint64
	place  journal.Location
	wanted bool
	stream int           // where its name ends
	record *event.Record // if it is not in the journal
}

// read takes entries from the journal whenever the loop wants some, and waits
// for them until ctx ends.
func (l *loop) read(ctx context.Context) {
	var a arrival
	visit := func(e journal.Entry) { l.visit(e, &a) }
	for {
		select {
		case <-l.wanted:
		case <-l.ctx.Done():
			return
		}
		a.entries, a.streams = a.entries[:0], a.streams[:0]
		_, a.err = l.Consumer.Next(ctx, readRecords, visit)
		if a.err != nil && ctx.Err() != nil {
			a.err = nil // nothing is left
		}
		select {
		case l.arrived <- &a:
		case <-l.ctx.Done():
			return
		}
	}
}

// visit notes whether an entry is wanted, and which stream it belongs to.
func (l *loop) visit(e journal.Entry, a *arrival) {
	r := e.Record
	wanted := !r.PositionOnly() && (r.Gap || l.Match(r))
	if wanted {
		a.streams = l.Sink.AppendStream(a.streams, r)
	}
	f := found{offset: e.Offset, place: e.Location, wanted: wanted, stream: len(a.streams)}
	if wanted && e.Location.Bytes == 0 {
		f.record = r
	}
	a.entries = append(a.entries, f)
}

// take sorts entries into streams.
func (l *loop) take(a *arrival) error {
	l.asked = false
	if a.err != nil {
		return fmt.Errorf("read journal: %w", a.err)
	}
	l.drained = len(a.entries) == 0
	now := time.Since(l.began)
	from := 0
	for i := range a.entries {
		f := &a.entries[i]
		e := entry{offset: f.offset, place: f.place}
		if !f.wanted {
			e.next = settled
			l.window.add(e)
			continue
		}
		number := l.window.add(e)
		if f.record != nil {
			l.kept[number] = f.record
		}
		l.put(l.stream(a.streams[from:f.stream]), number, now)
		from = f.stream
	}
	clear(a.entries) // lets go of what is not in the journal
	return l.acknowledge()
}
