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
	maxBatchRecords = 500
	maxBatchBytes   = 256 << 10
)

// A record that only says that Events were deleted moves the position, which
// spares a restart reading the deletion again. That can wait, for every record
// handed over is a write in the journal.
const positionFlushInterval = 10 * time.Second

// batcher is between reading and Out. It keeps the position and stamps it on
// every record, in the order in which records are put; and it gathers them into
// groups: whatever has come while Out was busy with the last one.
type batcher struct {
	handle     func(context.Context, []event.Record) error
	onAccepted func(states int) // is told how many states Out has accepted
	interval   time.Duration    // from one group to the next that is not full

	ready chan struct{} // a token: something should be handed over
	full  chan struct{} // a token: the group is full
	space chan struct{} // a token: there is room

	mu       sync.Mutex     // guards the following
	position event.Position // of the last record put
	proven   event.Position // the last one up to which a watch is known to have delivered everything
	accepted event.Position // of the last record for all sinks that Out has accepted
	movedAt  time.Time      // when something was last put
	pending  batch
	bytes    int
	spare    []*event.Room
}

// batch is some records, and the memory that the Events of those are in that were
// read from the API server. At 50,000 Events a second new memory for each would be
// 60 MB a second.
type batch struct {
	records []event.Record
	buffers []*event.Room
}

func newBatcher(start event.Position, out func(context.Context, []event.Record) error, taken func(states int)) *batcher {
	return &batcher{
		handle:     out,
		onAccepted: taken,
		ready:      make(chan struct{}, 1),
		full:       make(chan struct{}, 1),
		space:      make(chan struct{}, 1),
		position:   start,
		proven:     start,
		accepted:   start,
		movedAt:    time.Now(),
	}
}

// errBlocked is returned by put when there was no room for too long.
var errBlocked = errors.New("records are not taken")

// newBuffer returns memory for an Event. It is to be handed to put with the record,
// or to free.
func (h *batcher) newBuffer() *event.Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := len(h.spare) - 1
	if last < 0 {
		return new(event.Room)
	}
	room := h.spare[last]
	h.spare = h.spare[:last]
	return room
}

// recycle takes memory back that nobody uses any more.
func (h *batcher) recycle(rooms ...*event.Room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spare = append(h.spare, rooms...)
}

// add adds a record of size bytes, whose Event is in a room of newRoom or, if that
// is nil, the garbage collector's. It waits while the group is full: for patience,
// then it returns errBlocked and the record was not added. One goroutine may put at
// a time.
//
// The version and the time of rec.Position take the position forward, never
// back; the rest of the position stays as it is.
func (h *batcher) add(ctx context.Context, rec event.Record, in *event.Room, size int, patience time.Duration) error {
	if h.tryAdd(rec, in, size) {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-h.space:
			if h.tryAdd(rec, in, size) {
				return nil
			}
		case <-timer.C:
			return errBlocked
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *batcher) tryAdd(rec event.Record, in *event.Room, size int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isFull() {
		return false
	}
	to := h.position
	to.Version = max(to.Version, rec.Position.Version)
	if rec.Position.Time.After(to.Time) {
		to.Time = rec.Position.Time
	}
	rec.Position = to
	h.append(rec, size)
	h.proven = to
	if in != nil {
		h.pending.buffers = append(h.pending.buffers, in)
	}
	if !rec.PositionOnly() {
		notify(h.ready)
	}
	if h.isFull() {
		notify(h.full)
	}
	return true
}

// isFull is called with mu held.
func (h *batcher) isFull() bool {
	return len(h.pending.records) >= maxBatchRecords || h.bytes >= maxBatchBytes
}

// append adds a record and moves the position to where it stands. A record before
// it that only moved the position is no longer needed, if it did so for the same
// sinks. h.mu is held.
func (h *batcher) append(rec event.Record, size int) {
	h.position, h.movedAt = rec.Position, time.Now()
	records := h.pending.records
	if last := len(records) - 1; last >= 0 && records[last].PositionOnly() && records[last].To == rec.To {
		records[last] = rec
	} else {
		h.pending.records = append(records, rec)
	}
	h.bytes += size
}

// advance moves the position from where it was to that of a record which says
// no more than that, unless it has moved meanwhile.
func (h *batcher) advance(from event.Position, to event.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.position != from {
		return
	}
	h.append(to, 0)
	notify(h.ready)
}

// positionAndTime returns the position and when something was last put.
func (h *batcher) positionAndTime() (event.Position, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position, h.movedAt
}

// resetPosition replaces the position; the next record will say so.
func (h *batcher) resetPosition(p event.Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.position, h.proven = p, p
}

// amendPosition changes what is known of the position without moving it.
func (h *batcher) amendPosition(change func(*event.Position)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.position)
	change(&h.proven)
}

// markProven makes the position one that a watch has proven. advance alone does not.
func (h *batcher) markProven() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proven = h.position
}

func (h *batcher) lastProven() event.Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proven
}

// waitEmpty waits for room, for at most patience.
func (h *batcher) waitEmpty(ctx context.Context, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		h.mu.Lock()
		room := len(h.pending.records) == 0
		h.mu.Unlock()
		if room {
			return nil
		}
		select {
		case <-h.space:
		case <-timer.C:
			return errBlocked
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run hands over until ctx ends or Out fails.
func (h *batcher) run(ctx context.Context) error {
	ticker := time.NewTicker(positionFlushInterval)
	defer ticker.Stop()
	gather := time.NewTimer(0)
	defer gather.Stop()
	var last time.Time // that a group was handed over
	var g batch
	for {
		quiet := false
		select {
		case <-h.ready:
			if early := h.interval - time.Since(last); early > 0 {
				gather.Reset(early)
				select {
				case <-h.full:
				case <-gather.C:
				case <-ctx.Done():
					return nil
				}
			}
			last = time.Now()
		case <-ticker.C:
			quiet = true
		case <-ctx.Done():
			return nil
		}
		g = h.nextBatch(g)
		if len(g.records) == 0 {
			if quiet {
				h.freeSpare()
			}
			continue
		}
		// The records are Out's until it returns.
		to, forAll := lastForAll(g.records)
		states, records := countStates(g.records), len(g.records)
		if err := h.handle(ctx, g.records); err != nil {
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
		h.onAccepted(states)
		h.recycle(g.buffers...)
		clear(g.records)
	}
}

// freeSpare lets go of memory that a long list left.
func (h *batcher) freeSpare() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spare = nil
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

// nextBatch returns what is pending and leaves the slices of an earlier group in its
// place.
func (h *batcher) nextBatch(spare batch) batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.pending
	select {
	case <-h.full: // that was this group
	default:
	}
	h.pending, h.bytes = batch{spare.records[:0], spare.buffers[:0]}, 0
	notify(h.space)
	return g
}

// notify leaves a token, unless there is one already.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
