package watch

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// unreadyAfter is how long requests may fail before that is a reason to be
// called unready. A rolling restart of a control plane takes less.
const unreadyAfter = 5 * time.Minute

// health is what is known about how the watching goes. It is safe for
// concurrent use.
type health struct {
	gauge prometheus.Gauge // last contact

	mu           sync.Mutex // guards the following
	heartbeatAt  time.Time
	contactAt    time.Time
	failures     int       // in a row
	failingSince time.Time // of the first of them
	lastErr      error     // of the last of them
	stalledSince time.Time // since when watches bring nothing; zero: they work
}

// heartbeat says that the loop is alive.
func (h *health) heartbeat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heartbeatAt = time.Now()
}

// contacted says that the API server answered as it should.
func (h *health) contacted() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heartbeatAt = time.Now()
	h.contactAt = h.heartbeatAt
	h.gauge.Set(unixSeconds(h.contactAt))
}

// recordFailure says that an attempt failed, and returns how many have in a row, and
// with which error the one before.
func (h *health) recordFailure(err error) (failures int, last error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heartbeatAt = time.Now()
	if h.failures == 0 {
		h.failingSince = h.heartbeatAt
	}
	h.failures++
	last, h.lastErr = h.lastErr, err
	return h.failures, last
}

// recordSuccess says that things work, and returns how many attempts had failed
// before, and since when.
func (h *health) recordSuccess() (failures int, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failures, since = h.failures, h.failingSince
	h.failures, h.failingSince, h.lastErr = 0, time.Time{}, nil
	return failures, since
}

// failing reports whether the last attempt failed, and not for want of a permission.
func (h *health) failing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures > 0 && !denied(h.lastErr)
}

// setStalled says since when watches bring nothing; zero: they work.
func (h *health) setStalled(since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalledSince = since
}

// LastHeartbeat is when the loop last turned. It turns at least every five minutes,
// also while it waits: to retry, for room in the journal, or for something to
// come on an open watch.
func (w *Watcher) LastHeartbeat() time.Time {
	_, moved := w.batcher.positionAndTime()
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	if moved.After(w.health.heartbeatAt) {
		return moved
	}
	return w.health.heartbeatAt
}

// LastContact is when the API server last answered as it should; zero if it
// never has.
func (w *Watcher) LastContact() time.Time {
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	return w.health.contactAt
}

// Ready returns nil, or why Events are not being read as they should: at once if
// permission is missing or watches bring nothing, and if the API server cannot be
// used for any other reason, after five minutes.
func (w *Watcher) Ready() error {
	h := &w.health
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.lastErr != nil && (denied(h.lastErr) || time.Since(h.failingSince) >= unreadyAfter):
		return fmt.Errorf("cannot read events since %s: %w", h.failingSince.UTC().Format(time.RFC3339), h.lastErr)
	case !h.stalledSince.IsZero():
		return fmt.Errorf("watches bring nothing, lists do, since %s: only the latest state of each event is read", h.stalledSince.UTC().Format(time.RFC3339))
	}
	return nil
}
