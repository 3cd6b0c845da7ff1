package journal

import (
	"fmt"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

const (
	// groupBytes bounds the bytes of one sync: enough that slow syncs do not limit the rate, few
	// enough to be staged in memory.
	groupBytes = 2 << 20

	// flushInterval is how long a position may wait for a record to be written with.
	flushInterval = time.Second

	// The pause after a failed write, doubled each time.
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// writer is the goroutine that writes the log.
type writer struct {
	j   *Journal
	out *storage.Writer

	// pending are positions that are in the tail and not yet in the log.
	pending map[string]event.Record
}

// run commits staged requests. Requests that are staged during a sync form the next group.
func (w *writer) run() {
	defer func() { w.out.Close() }()
	flush := time.NewTimer(flushInterval)
	flush.Stop()
	for {
		group := w.nextGroup()
		if len(group) == 0 {
			select {
			case <-w.j.appending:
			case <-flush.C:
				if !w.flushPositions() {
					flush.Reset(flushInterval)
				}
			case <-w.j.closing:
				w.flushPositions()
				return
			}
			continue
		}
		idle := len(w.pending) == 0
		w.commit(group)
		if idle && len(w.pending) > 0 {
			flush.Reset(flushInterval)
		}
	}
}

// nextGroup takes staged requests, up to the size of a group but at least one if there is one.
func (w *writer) nextGroup() []*request {
	j := w.j
	j.mu.Lock()
	defer j.mu.Unlock()
	n, size := 0, int64(0)
	for n < len(j.staged) {
		size += int64(len(*j.staged[n].frames))
		if n > 0 && size > min(groupBytes, j.maxSegmentBytes) {
			break
		}
		n++
	}
	group := slices.Clone(j.staged[:n])
	j.staged = slices.Delete(j.staged, 0, n)
	return group
}

// commit writes a group and replies to its requests. It retries until it succeeds; cancelled
// requests leave the group.
func (w *writer) commit(group []*request) {
	for pause := minRetry; ; {
		group = slices.DeleteFunc(group, func(r *request) bool {
			err := r.ctx.Err()
			if err != nil {
				r.done <- err
			}
			return err != nil
		})
		if len(group) == 0 {
			w.j.unblock()
			return
		}
		b, err := w.assemble(group)
		full := false
		if err == nil {
			full, err = w.write(b)
		}
		switch {
		case err != nil:
			w.j.block(err.Error())
			if !w.waitToRetry(group, pause) {
				reply(group, fmt.Errorf("%w: %w", ErrClosed, err))
				return
			}
			pause = min(2*pause, maxRetry)
		case full:
			w.j.block("")
			if !w.waitForCapacity() {
				reply(group, ErrClosed)
				return
			}
		default:
			w.j.unblock()
			reply(group, nil)
			return
		}
	}
}

func reply(group []*request, err error) {
	for _, r := range group {
		r.done <- err
	}
}

// flushPositions writes the positions that wait for a record, and reports whether none is left.
// Positions that remain are as durable as before.
func (w *writer) flushPositions() bool {
	if len(w.pending) == 0 {
		return true
	}
	b, err := w.assemblePending()
	full := false
	if err == nil {
		full, err = w.write(b)
	}
	if err != nil {
		w.j.log.Debug("cannot write positions, retrying", "err", err)
	}
	w.j.setBytesWanted(0) // no Append waits
	return err == nil && !full
}

// write makes a batch durable and visible to consumers, or reports that the journal is full.
// After an error none of the batch is in the log.
func (w *writer) write(b *batch) (full bool, err error) {
	if b.size > 0 {
		if ok, err := w.reserve(b.size); err != nil || !ok {
			return err == nil, err
		}
		if w.needsSegment(b.size) {
			if err := w.startSegment(); err != nil {
				return false, err
			}
		}
		if err := w.out.Write(b.frames); err != nil {
			return false, err
		}
	}
	w.publish(b)
	return false, nil
}
