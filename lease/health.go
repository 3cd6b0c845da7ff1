package lease

import (
	"fmt"
	"sync"
	"time"
)

// unreachableFor is how long requests may fail before the replica is unready. A rolling restart of
// a control plane takes less.
const unreachableFor = 5 * time.Minute

// health is the result of the latest requests. It is safe for concurrent use.
type health struct {
	mu       sync.Mutex // guards the following
	failures int        // in a row
	since    time.Time  // of the first of them
	err      error      // of the last of them
}

// failed returns the number of failures in a row, and the previous error.
func (h *health) failed(err error) (failures int, last error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures == 0 {
		h.since = time.Now()
	}
	h.failures++
	last, h.err = h.err, err
	return h.failures, last
}

// succeeded returns the number of failures before, and the time of the first.
func (h *health) succeeded() (failures int, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failures, since = h.failures, h.since
	h.failures, h.since, h.err = 0, time.Time{}, nil
	return failures, since
}

func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil || (!denied(h.err) && time.Since(h.since) < unreachableFor) {
		return nil
	}
	return fmt.Errorf("requests have failed since %s: %w", h.since.UTC().Format(time.RFC3339), h.err)
}

// last is the error of the last request, nil if it succeeded.
func (h *health) last() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// checkpointHealth notes since when the checkpoint cannot be stored. It is safe for concurrent use.
type checkpointHealth struct {
	mu    sync.Mutex // guards the following
	since time.Time  // zero: it can be stored
	err   error
}

// record notes the result of encoding a checkpoint. It reports the first failure in a row, or after
// the first success how long the failures lasted.
func (h *checkpointHealth) record(err error) (began bool, lasted time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	switch {
	case err == nil && !h.since.IsZero():
		lasted = max(time.Since(h.since), 1)
		h.since = time.Time{}
	case err != nil && h.since.IsZero():
		began, h.since = true, time.Now()
	}
	return began, lasted
}

func (h *checkpointHealth) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return nil
	}
	return fmt.Errorf("checkpoint not stored since %s: %w", h.since.UTC().Format(time.RFC3339), h.err)
}
