package lease

import (
	"sync"
	"time"
)

// validity is whether this replica may act. Once it may not it never may again:
// whoever was told so has stopped. It is safe for concurrent use.
type validity struct {
	deadline time.Duration // after the beginning of a renewal
	now      func() instant

	mu      sync.Mutex // guards the following
	held    bool
	renewed instant // when the last successful renewal was begun
}

// begin says that the Lease is ours, by a request that was begun then.
func (v *validity) begin(begun instant) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held, v.renewed = true, begun
}

// renew says that a renewal that was begun then has succeeded, and reports
// whether that was in time.
func (v *validity) renew(begun instant) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.left() <= 0 {
		return false
	}
	v.renewed = begun
	return true
}

// end says that the Lease is not ours any more.
func (v *validity) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = false
}

// check returns when the last renewal was begun and how long it is good for;
// nothing is left if the Lease is not ours.
func (v *validity) check() (renewed instant, left time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.renewed, v.left()
}

// left is what check returns. v.mu is held.
func (v *validity) left() time.Duration {
	if !v.held {
		return 0
	}
	left := v.deadline - v.now().since(v.renewed)
	v.held = left > 0
	return left
}
