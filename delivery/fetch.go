package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/journal"
)

// fetchRecords is the number of records of one read of the journal.
const fetchRecords = 512

// fetched is the result of one read of the journal. The next one reuses its memory.
type fetched struct {
	entries []fetchedEntry
	streams []byte // names of the streams of matching entries, concatenated
	err     error
}

type fetchedEntry struct {
	entry
	streamEnd int // end of its stream's name
}

// fetch reads entries from the journal when the loop requests them, and waits for new
// ones until ctx ends.
func (l *loop) fetch(ctx context.Context) {
	var f fetched
	visit := func(e journal.Entry) { l.match(e, &f) }
	for {
		select {
		case <-l.requests:
		case <-l.ctx.Done():
			return
		}
		f.entries, f.streams = f.entries[:0], f.streams[:0]
		_, f.err = l.Consumer.Next(ctx, fetchRecords, visit)
		if f.err != nil && ctx.Err() != nil {
			f.err = nil // the journal has no more entries
		}
		select {
		case l.fetched <- &f:
		case <-l.ctx.Done():
			return
		}
	}
}

// match adds an entry to f, with its stream if the sink wants it.
func (l *loop) match(e journal.Entry, f *fetched) {
	r := e.Record
	matches := !r.PositionOnly() && (r.Gap || l.Match(r))
	found := entry{offset: e.Offset, location: e.Location, complete: !matches}
	if matches {
		f.streams = l.Sink.AppendStream(f.streams, r)
		if e.Location.Bytes == 0 {
			found.record = r
		}
	}
	f.entries = append(f.entries, fetchedEntry{entry: found, streamEnd: len(f.streams)})
}

// addFetched adds entries to the window and to their streams.
func (l *loop) addFetched(f *fetched) error {
	l.requested = false
	if f.err != nil {
		return fmt.Errorf("read journal: %w", f.err)
	}
	l.drained = len(f.entries) == 0
	now := time.Since(l.began)
	start := 0
	for i := range f.entries {
		e := l.window.add(f.entries[i].entry)
		if e.complete {
			continue
		}
		end := f.entries[i].streamEnd
		l.appendEntry(l.stream(f.streams[start:end]), e, now)
		start = end
	}
	clear(f.entries) // for the garbage collector
	return l.acknowledge()
}

// requestMore requests entries unless the window is full.
func (l *loop) requestMore() {
	if !l.requested && !l.drained && !l.windowFull() {
		l.requested = true
		l.requests <- struct{}{}
	}
}

// windowFull reports whether the window is full. Then batches do not wait to fill.
func (l *loop) windowFull() bool {
	return l.pendingBytes >= l.WindowBytes || l.window.len() >= windowRecords
}
