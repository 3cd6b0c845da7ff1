package watch

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// unreadyAfter is how long requests may fail before the source is not ready. A rolling restart
// of a control plane takes less.
const unreadyAfter = 5 * time.Minute

// health is the state behind readiness and liveness. It is safe for concurrent use.
type health struct {
	gauge prometheus.Gauge // last contact

	mu           sync.Mutex // guards the following
	heartbeatAt  time.Time
	contactAt    time.Time
	failures     int       // consecutive
	failingSince time.Time // time of the first of them
	lastErr      error     // of the last of them
	stallBegan   time.Time // zero: not stalled
}

// heartbeat records progress of the loop.
func (h *health) heartbeat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heartbeatAt = time.Now()
}

// contacted records a successful response of the API server.
func (h *health) contacted() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heartbeatAt = time.Now()
	h.contactAt = h.heartbeatAt
	h.gauge.Set(unixSeconds(h.contactAt))
}

// recordFailure returns the number of consecutive failures, and the error of the previous one.
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

// recordSuccess returns the number of failures before the success, and when they began.
func (h *health) recordSuccess() (failures int, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failures, since = h.failures, h.failingSince
	h.failures, h.failingSince, h.lastErr = 0, time.Time{}, nil
	return failures, since
}

// failing reports whether the last attempt failed for another reason than a missing permission.
func (h *health) failing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures > 0 && !denied(h.lastErr)
}

// setStalled records when a stall began; zero: it has ended.
func (h *health) setStalled(since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stallBegan = since
}

// stalledSince returns when the stall began; zero: not stalled.
func (h *health) stalledSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stallBegan
}

func (h *health) lastHeartbeat() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heartbeatAt
}

func (h *health) lastContact() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.contactAt
}

// ready implements Watcher.Ready.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.lastErr != nil && (denied(h.lastErr) || time.Since(h.failingSince) >= unreadyAfter):
		return fmt.Errorf("cannot read events since %s: %w", h.failingSince.UTC().Format(time.RFC3339), h.lastErr)
	case !h.stallBegan.IsZero():
		return fmt.Errorf("watches deliver nothing while lists show newer events, since %s: only the latest state of each event is read", h.stallBegan.UTC().Format(time.RFC3339))
	}
	return nil
}
