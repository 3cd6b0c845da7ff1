package lease

import (
	"fmt"
	"sync"
	"time"
)

// unreachableFor is how long requests may fail before that is a reason to be
// called unready. A rolling restart of a control plane takes less.
const unreachableFor = 5 * time.Minute

// health is what is known about how the requests go. It is safe for concurrent
// use.
type health struct {
	mu       sync.Mutex // guards the following
	failures int        // in a row
	since    time.Time  // of the first of them
	err      error      // of the last of them
}

// failed returns how many requests have failed in a row, and with which error
// the one before.
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

// worked returns how many requests had failed before, and since when.
func (h *health) worked() (failures int, since time.Time) {
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
	return fmt.Errorf("cannot use the lease since %s: %w", h.since.UTC().Format(time.RFC3339), h.err)
}

// last is the error of the last request; nil if it succeeded.
func (h *health) last() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// unsaved is a time in which the present positions do not fit into the Lease. It
// is safe for concurrent use.
type unsaved struct {
	mu    sync.Mutex // guards the following
	since time.Time  // zero: they fit
	err   error
}

// report notes whether they fit now, and returns whether such a time began, or how
// long the one lasted that is over.
func (u *unsaved) report(err error) (began bool, lasted time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
	switch {
	case err == nil && !u.since.IsZero():
		lasted = max(time.Since(u.since), 1)
		u.since = time.Time{}
	case err != nil && u.since.IsZero():
		began, u.since = true, time.Now()
	}
	return began, lasted
}

// ready returns why the Lease does not hold the present positions; nil if it
// does.
func (u *unsaved) ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		return nil
	}
	return fmt.Errorf("positions are not saved since %s: %w", u.since.UTC().Format(time.RFC3339), u.err)
}
