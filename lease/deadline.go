package lease

import (
	"sync"
	"time"
)

// leaseDeadline is whether this replica may act. Once it may not it never may again:
// whoever was told so has stopped. It is safe for concurrent use.
type leaseDeadline struct {
	after time.Duration // after the beginning of a renewal
	now   func() clockReading

	mu      sync.Mutex // guards the following
	held    bool
	renewed clockReading // when the last successful renewal was begun
}

// begin says that the Lease is ours, by a request that was begun then.
func (v *leaseDeadline) begin(begun clockReading) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held, v.renewed = true, begun
}

// renew says that a renewal that was begun then has succeeded, and reports
// whether that was in time.
func (v *leaseDeadline) renew(begun clockReading) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.left() <= 0 {
		return false
	}
	v.renewed = begun
	return true
}

// end says that the Lease is not ours any more.
func (v *leaseDeadline) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = false
}

// check returns when the last renewal was begun and how long it is good for;
// nothing is left if the Lease is not ours.
func (v *leaseDeadline) check() (renewed clockReading, left time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.renewed, v.left()
}

// left is what check returns. v.mu is held.
func (v *leaseDeadline) left() time.Duration {
	if !v.held {
		return 0
	}
	left := v.after - v.now().since(v.renewed)
	v.held = left > 0
	return left
}
