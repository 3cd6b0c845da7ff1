package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// Bounds of what is read ahead of Out: one group is with Out while the next one
// gathers. Sizes are those of the states as they were read; decoded, a state takes
// some 1 KB more. Shorter groups would save little memory and cost CPU, for each
// is a sync of the journal.
const (
	groupRecords = 500
	groupBytes   = 256 << 10
)

// A record that only says that Events were deleted moves the position, which
// spares a restart reading the deletion again. That can wait, for every record
// handed over is a write in the journal.
const deletionsWait = 10 * time.Second

// handover is between reading and Out. It keeps the position and stamps it on
// every record, in the order in which records are put; and it gathers them into
// groups: whatever has come while Out was busy with the last one.
type handover struct {
	out   func(context.Context, []event.Record) error
	taken func(states int) // is told how many states Out has accepted

	ready chan struct{} // a token: something should be handed over
	room  chan struct{} // a token: there is room

	mu       sync.Mutex     // guards the following
	position event.Position // of the last record put
	accepted event.Position // of the last record for all sinks that Out has accepted
	moved    time.Time      // when something was last put
	pending  []event.Record
	bytes    int
}

func newHandover(start event.Position, out func(context.Context, []event.Record) error, taken func(states int)) *handover {
	return &handover{
		out:      out,
		taken:    taken,
		ready:    make(chan struct{}, 1),
		room:     make(chan struct{}, 1),
		position: start,
		accepted: start,
		moved:    time.Now(),
	}
}

// errBlocked is returned by put when there was no room for too long.
var errBlocked = errors.New("records are not taken")

// put adds a record of size bytes, and waits for room while there is none: for
// patience, then it returns errBlocked and the record was not added. One
// goroutine may put at a time.
//
// The version and the time of rec.Position take the position forward, never
// back; the rest of the position stays as it is.
func (h *handover) put(ctx context.Context, rec event.Record, size int, patience time.Duration) error {
	if h.tryPut(rec, size) {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-h.room:
			if h.tryPut(rec, size) {
				return nil
			}
		case <-timer.C:
			return errBlocked
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *handover) tryPut(rec event.Record, size int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) >= groupRecords || h.bytes >= groupBytes {
		return false
	}
	to := h.position
	to.Version = max(to.Version, rec.Position.Version)
	if rec.Position.Time.After(to.Time) {
		to.Time = rec.Position.Time
	}
	rec.Position = to
	h.push(rec, size)
	if !rec.PositionOnly() {
		notify(h.ready)
	}
	return true
}

// push adds a record and moves the position to where it stands. A record before
// it that only moved the position is no longer needed, if it did so for the same
// sinks. h.mu is held.
func (h *handover) push(rec event.Record, size int) {
	h.position, h.moved = rec.Position, time.Now()
	if last := len(h.pending) - 1; last >= 0 && h.pending[last].PositionOnly() && h.pending[last].To == rec.To {
		h.pending[last] = rec
	} else {
		h.pending = append(h.pending, rec)
	}
	h.bytes += size
}

// advance moves the position from where it was to that of a record which says
// no more than that, unless it has moved meanwhile.
func (h *handover) advance(from event.Position, to event.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.position != from {
		return
	}
	h.push(to, 0)
	notify(h.ready)
}

// at returns the position and when something was last put.
func (h *handover) at() (event.Position, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position, h.moved
}

// set replaces the position; the next record will say so.
func (h *handover) set(p event.Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.position = p
}

// wait waits for room, for at most patience.
func (h *handover) wait(ctx context.Context, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		h.mu.Lock()
		room := len(h.pending) == 0
		h.mu.Unlock()
		if room {
			return nil
		}
		select {
		case <-h.room:
		case <-timer.C:
			return errBlocked
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run hands over until ctx ends or Out fails.
func (h *handover) run(ctx context.Context) error {
	ticker := time.NewTicker(deletionsWait)
	defer ticker.Stop()
	var group []event.Record
	for {
		select {
		case <-h.ready:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		group = h.take(group[:0])
		if len(group) == 0 {
			continue
		}
		// The records are Out's from now on.
		to, forAll := lastForAll(group)
		states, records := countStates(group), len(group)
		if err := h.out(ctx, group); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("hand over %d records: %w", records, err)
		}
		if forAll {
			h.mu.Lock()
			h.accepted = to
			h.mu.Unlock()
		}
		h.taken(states)
		clear(group)
	}
}

// lastForAll returns the position of the last record that is for all sinks, if
// there is one.
func lastForAll(records []event.Record) (event.Position, bool) {
	for i := range slices.Backward(records) {
		if records[i].To == "" {
			return records[i].Position, true
		}
	}
	return event.Position{}, false
}

// countStates leaves out what is no state that was read.
func countStates(records []event.Record) (n int) {
	for i := range records {
		if !records[i].PositionOnly() && !records[i].Gap {
			n++
		}
	}
	return n
}

// take returns what is pending and leaves spare in its place.
func (h *handover) take(spare []event.Record) []event.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	group := h.pending
	h.pending, h.bytes = spare, 0
	notify(h.room)
	return group
}

// notify leaves a token, unless there is one already.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
