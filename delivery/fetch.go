package delivery

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
)

// fetchRecords is the number of records of one read of the journal. Each sink has memory for so
// many, here and in the journal.
const fetchRecords = 128

// fetched is the result of one read of the journal. The next one reuses its memory.
type fetched struct {
	entries []fetchedEntry
	streams []byte // names of the streams of matching entries, concatenated
	err     error
}

type fetchedEntry struct {
	entry
	record    *event.Record // of a matching record that the journal does not store
	streamEnd int           // end of its stream's name
	normal    bool          // the Event's type is Normal
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
	found := fetchedEntry{entry: entry{offset: e.Offset, location: e.Location, next: completed}}
	if matches {
		found.next = 0
		found.normal = r.Event.Type == corev1.EventTypeNormal
		f.streams = l.Sink.AppendStream(f.streams, r)
		if e.Location.Bytes == 0 {
			found.record = r
		}
	}
	found.streamEnd = len(f.streams)
	f.entries = append(f.entries, found)
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
		e := &f.entries[i]
		number := l.window.add(e.entry, e.record)
		if e.next == completed {
			continue
		}
		end := e.streamEnd
		wait := l.BatchWait
		if e.normal && !l.hasBacklog() {
			wait = l.NormalBatchWait
		}
		l.appendEntry(l.stream(f.streams[start:end]), number, now, now+wait)
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

// hasBacklog reports whether more records wait than 3,000 Events a second leave in the default
// NormalBatchWait. Then the stream that has waited longest is sent first. If streams with Warnings
// were, the others would keep the window full.
func (l *loop) hasBacklog() bool {
	return l.pendingBytes >= l.WindowBytes/2 || l.window.len() >= windowRecords/8
}

// windowFull reports whether the window is full. Then batches do not wait to fill.
func (l *loop) windowFull() bool {
	return l.pendingBytes >= l.WindowBytes || l.window.len() >= windowRecords
}
