package watch

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// unreachableFor is how long requests may fail before that is a reason to be
// called unready. A rolling restart of a control plane takes less.
const unreachableFor = 5 * time.Minute

// health is what is known about how the watching goes. It is safe for
// concurrent use.
type health struct {
	gauge prometheus.Gauge // last contact

	mu       sync.Mutex // guards the following
	turn     time.Time
	contact  time.Time
	failures int       // in a row
	since    time.Time // of the first of them
	err      error     // of the last of them
	silent   time.Time // since when watches bring nothing; zero: they work
}

// turned says that the loop is alive.
func (h *health) turned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn = time.Now()
}

// answered says that the API server answered as it should.
func (h *health) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn = time.Now()
	h.contact = h.turn
	h.gauge.Set(unixSeconds(h.contact))
}

// failed says that an attempt failed, and returns how many have in a row, and
// with which error the one before.
func (h *health) failed(err error) (failures int, last error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn = time.Now()
	if h.failures == 0 {
		h.since = h.turn
	}
	h.failures++
	last, h.err = h.err, err
	return h.failures, last
}

// recovered says that things work, and returns how many attempts had failed
// before, and since when.
func (h *health) recovered() (failures int, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failures, since = h.failures, h.since
	h.failures, h.since, h.err = 0, time.Time{}, nil
	return failures, since
}

// failing reports whether the last attempt failed, and not for want of a permission.
func (h *health) failing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures > 0 && !denied(h.err)
}

// stalled says since when watches bring nothing; zero: they work.
func (h *health) stalled(since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = since
}

// LastTurn is when the loop last turned. It turns at least every five minutes,
// also while it waits: to retry, for room in the journal, or for something to
// come on an open watch.
func (w *Watcher) LastTurn() time.Time {
	_, moved := w.hand.at()
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	if moved.After(w.health.turn) {
		return moved
	}
	return w.health.turn
}

// LastContact is when the API server last answered as it should; zero if it
// never has.
func (w *Watcher) LastContact() time.Time {
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	return w.health.contact
}

// Ready returns nil, or why Events are not being read as they should: at once if
// permission is missing or watches bring nothing, and if the API server cannot be
// used for any other reason, after five minutes.
func (w *Watcher) Ready() error {
	h := &w.health
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil && (denied(h.err) || time.Since(h.since) >= unreachableFor):
		return fmt.Errorf("cannot read events since %s: %w", h.since.UTC().Format(time.RFC3339), h.err)
	case !h.silent.IsZero():
		return fmt.Errorf("watches bring nothing, lists do, since %s: only the latest state of each event is read", h.silent.UTC().Format(time.RFC3339))
	}
	return nil
}
