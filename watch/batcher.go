package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/wait"
)

// Limits of a batch. One batch is with Handle while the next one fills. Bytes are those of the
// states in protobuf; a decoded state needs about 1 KB more. Smaller batches would save little
// memory and cost CPU, because each is a sync of the journal.
const (
	maxBatchRecords = 500
	maxBatchBytes   = 256 << 10
)

// positionFlushInterval is how long a record may wait that only moves the position, after a
// deletion. It saves a restart from reading the deletion again, and each batch is a write of the
// journal.
const positionFlushInterval = 10 * time.Second

// batcher is between reading and Options.Handle. It sets source and position of each record, in
// the order in which records are added. Records that arrive during one call of Handle are the
// batch of the next call.
type batcher struct {
	source   string
	handle   func(context.Context, []event.Record) error
	onStored func(states int)
	interval time.Duration // between batches that are not full

	ready chan struct{} // a token: there is a record to handle
	full  chan struct{} // a token: the batch is full
	space chan struct{} // a token: the batch is empty again

	mu       sync.Mutex     // guards the following
	position event.Position // of the last record added
	proven   event.Position // up to which a watch or a list has delivered everything
	stored   event.Position // of the last record for all sinks that Handle has stored
	addedAt  time.Time      // when the last record was added
	pending  batch
	bytes    int
	held     bool // further records follow at once
	states   bool // pending has more than positions, and ready has no token for it
	spare    []*event.DecodeBuffer
}

// batch has records, and the memory of the Events that were decoded. With new memory for each,
// 50,000 Events a second would allocate 60 MB a second.
type batch struct {
	records []event.Record
	buffers []*event.DecodeBuffer
}

func newBatcher(source string, start event.Position, handle func(context.Context, []event.Record) error, onStored func(states int)) *batcher {
	return &batcher{
		source:   source,
		handle:   handle,
		onStored: onStored,
		ready:    make(chan struct{}, 1),
		full:     make(chan struct{}, 1),
		space:    make(chan struct{}, 1),
		position: start,
		proven:   start,
		stored:   start,
		addedAt:  time.Now(),
	}
}

// newBuffer returns memory for an Event. The caller passes it to add with the record, or to
// recycle.
func (b *batcher) newBuffer() *event.DecodeBuffer {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.spare) - 1
	if last < 0 {
		return new(event.DecodeBuffer)
	}
	buffer := b.spare[last]
	b.spare = b.spare[:last]
	return buffer
}

// recycle makes buffers available to newBuffer.
func (b *batcher) recycle(buffers ...*event.DecodeBuffer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = append(b.spare, buffers...)
}

// add adds a record of size bytes. Its Event is in buffer, unless that is nil. If the batch is
// full, add waits, for at most timeout; then it returns errBlocked and has not added the record.
// Calls must not overlap.
//
// Version and time of rec.Position move the position forward, never back; the rest of the
// position stays.
func (b *batcher) add(ctx context.Context, rec event.Record, buffer *event.DecodeBuffer, size int, timeout time.Duration) error {
	if b.tryAdd(rec, buffer, size) {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case <-b.space:
			if b.tryAdd(rec, buffer, size) {
				return nil
			}
		case <-timer.C:
			return errBlocked
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// heartbeatInterval is the time between two heartbeats during a long wait.
const heartbeatInterval = 30 * time.Second

// addWaiting adds a record as add does, without a timeout. No connection may be open meanwhile.
func (b *batcher) addWaiting(ctx context.Context, rec event.Record, buffer *event.DecodeBuffer, size int, heartbeat func()) error {
	for {
		if err := b.add(ctx, rec, buffer, size, heartbeatInterval); !errors.Is(err, errBlocked) {
			return err
		}
		heartbeat()
	}
}

func (b *batcher) tryAdd(rec event.Record, buffer *event.DecodeBuffer, size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isFull() {
		return false
	}
	to := b.position
	to.Version = max(to.Version, rec.Position.Version)
	if rec.Position.Time.After(to.Time) {
		to.Time = rec.Position.Time
	}
	rec.Position = to
	b.append(rec, size)
	b.proven = to
	if buffer != nil {
		b.pending.buffers = append(b.pending.buffers, buffer)
	}
	if !rec.PositionOnly() {
		b.states = true
	}
	b.announce()
	if b.isFull() {
		wait.Notify(b.full)
	}
	return true
}

// hold sets whether further records have been received and will be added at once. Then run does not
// wake up before they are.
func (b *batcher) hold(more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = more
	b.announce()
}

// announce wakes run if there are states that it does not know of. It requires mu.
func (b *batcher) announce() {
	if b.states && (!b.held || b.isFull()) {
		b.states = false
		wait.Notify(b.ready)
	}
}

// isFull requires mu.
func (b *batcher) isFull() bool {
	return len(b.pending.records) >= maxBatchRecords || b.bytes >= maxBatchBytes
}

// append adds a record and moves the position to its position. It replaces a preceding record
// that only moved the position for the same sinks. It requires mu.
func (b *batcher) append(rec event.Record, size int) {
	b.position, b.addedAt = rec.Position, time.Now()
	rec.Source = b.source
	records := b.pending.records
	if last := len(records) - 1; last >= 0 && records[last].PositionOnly() && records[last].OnlySink == rec.OnlySink {
		records[last] = rec
	} else {
		b.pending.records = append(records, rec)
	}
	b.bytes += size
}

// advance adds a record, for one sink or all, that only moves the position, unless the position
// has left from.
func (b *batcher) advance(from, to event.Position, sink string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.position != from {
		return
	}
	b.append(event.Record{Position: to, OnlySink: sink}, 0)
	wait.Notify(b.ready)
}

// advanceTo advances to a version, for all sinks.
func (b *batcher) advanceTo(from event.Position, version uint64) {
	to := from
	to.Version = version
	b.advance(from, to, "")
}

// at returns the position.
func (b *batcher) at() event.Position {
	pos, _ := b.positionAndTime()
	return pos
}

// positionAndTime returns the position and when the last record was added.
func (b *batcher) positionAndTime() (event.Position, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.position, b.addedAt
}

// resetPosition replaces the position without adding a record.
func (b *batcher) resetPosition(p event.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.position, b.proven = p, p
}

// amendPosition changes details of the position without moving it.
func (b *batcher) amendPosition(change func(*event.Position)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.position)
	change(&b.proven)
}

// markProven marks everything up to the position as delivered. advance alone does not.
func (b *batcher) markProven() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proven = b.position
}

func (b *batcher) lastProven() event.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proven
}

// waitEmpty waits until no record is pending, and returns errBlocked after timeout.
func (b *batcher) waitEmpty(ctx context.Context, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		b.mu.Lock()
		empty := len(b.pending.records) == 0
		b.mu.Unlock()
		if empty {
			return nil
		}
		select {
		case <-b.space:
		case <-timer.C:
			return errBlocked
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run passes batches to handle until ctx is done or handle fails.
func (b *batcher) run(ctx context.Context) error {
	ticker := time.NewTicker(positionFlushInterval)
	defer ticker.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last time.Time // of the last batch
	var current batch
	for {
		idle := false
		select {
		case <-b.ready:
			if early := b.interval - time.Since(last); early > 0 {
				pause.Reset(early)
				select {
				case <-b.full:
				case <-pause.C:
				case <-ctx.Done():
					return nil
				}
			}
			last = time.Now()
		case <-ticker.C:
			idle = true
		case <-ctx.Done():
			return nil
		}
		current = b.nextBatch(current)
		if len(current.records) == 0 {
			if idle {
				b.freeSpare()
			}
			continue
		}
		// handle may change the records.
		to, forAll := lastForAll(current.records)
		states, records := countStates(current.records), len(current.records)
		if err := b.handle(ctx, current.records); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("store %d records: %w", records, err)
		}
		if forAll {
			b.mu.Lock()
			b.stored = to
			b.mu.Unlock()
		}
		b.onStored(states)
		b.recycle(current.buffers...)
		clear(current.records)
	}
}

// freeSpare releases memory that a long list has left.
func (b *batcher) freeSpare() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = nil
}

// nextBatch returns the pending batch. The next one uses the slices of done.
func (b *batcher) nextBatch(done batch) batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.pending
	select {
	case <-b.full: // the token of this batch
	default:
	}
	b.pending, b.bytes, b.states = batch{done.records[:0], done.buffers[:0]}, 0, false
	wait.Notify(b.space)
	return next
}

// lastForAll returns the position of the last record that is for all sinks, if there is one.
func lastForAll(records []event.Record) (event.Position, bool) {
	for i := range slices.Backward(records) {
		if records[i].OnlySink == "" {
			return records[i].Position, true
		}
	}
	return event.Position{}, false
}

// countStates counts the records that are neither gaps nor only move the position.
func countStates(records []event.Record) (n int) {
	for i := range records {
		if !records[i].PositionOnly() && !records[i].Gap {
			n++
		}
	}
	return n
}
