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

// run commits staged requests. Those staged during a sync form the next group.
func (w *writer) run() {
	defer w.out.Close()
	flush := time.NewTimer(flushInterval)
	flush.Stop()
	for {
		requests := w.nextRequests()
		if len(requests) == 0 {
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
		w.commit(requests)
		if idle && len(w.pending) > 0 {
			flush.Reset(flushInterval)
		}
	}
}

// nextRequests takes staged requests for one group: at least one, if there is one.
func (w *writer) nextRequests() []*request {
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
	requests := slices.Clone(j.staged[:n])
	j.staged = slices.Delete(j.staged, 0, n)
	return requests
}

// commit writes a group and replies to its requests. It retries until it succeeds; cancelled
// requests leave the group.
func (w *writer) commit(requests []*request) {
	for pause := minRetry; ; {
		requests = slices.DeleteFunc(requests, func(r *request) bool {
			err := r.ctx.Err()
			if err != nil {
				r.done <- err
			}
			return err != nil
		})
		if len(requests) == 0 {
			w.j.unblock()
			return
		}
		g, err := w.assemble(requests)
		full := false
		if err == nil {
			full, err = w.write(g)
		}
		switch {
		case err != nil:
			w.j.block(err.Error())
			if !w.waitToRetry(requests, pause) {
				reply(requests, fmt.Errorf("%w: %w", ErrClosed, err))
				return
			}
			pause = min(2*pause, maxRetry)
		case full:
			w.j.block("")
			if !w.waitForCapacity() {
				reply(requests, ErrClosed)
				return
			}
		default:
			w.j.unblock()
			reply(requests, nil)
			return
		}
	}
}

func reply(requests []*request, err error) {
	for _, r := range requests {
		r.done <- err
	}
}

// flushPositions writes the positions that wait for a record, and reports whether none is left.
// Positions that remain are as durable as before.
func (w *writer) flushPositions() bool {
	if len(w.pending) == 0 {
		return true
	}
	g, err := w.assemblePending()
	full := false
	if err == nil {
		full, err = w.write(g)
	}
	if err != nil {
		w.j.log.Debug("cannot write positions, retrying", "err", err)
	}
	w.j.setBytesWanted(0) // no Append waits
	return err == nil && !full
}

// write makes a group durable and visible to consumers, or reports that the journal is full.
// After an error none of the group is in the log.
func (w *writer) write(g *group) (full bool, err error) {
	if g.size > 0 {
		if ok, err := w.reserve(g.size); err != nil || !ok {
			return err == nil, err
		}
		if w.needsSegment(g.size) {
			if err := w.startSegment(); err != nil {
				return false, err
			}
		}
		if err := w.out.Write(g.frames); err != nil {
			return false, err
		}
	}
	w.publish(g)
	return false, nil
}
