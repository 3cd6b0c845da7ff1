package lease

import (
	"sync"
	"time"
)

// leaseDeadline measures for how long this replica may act. Once the deadline has passed, no later
// renewal counts. It is safe for concurrent use.
type leaseDeadline struct {
	renewDeadline time.Duration // after the start of a renewal
	now           func() clockReading

	mu      sync.Mutex // guards the following
	held    bool
	renewed clockReading // the start of the last successful renewal
}

// start notes that a request which began at the given time has acquired the Lease.
func (d *leaseDeadline) start(begun clockReading) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.renewed = true, begun
}

// renew notes that a renewal which began at the given time has succeeded, and reports whether it
// succeeded before the deadline.
func (d *leaseDeadline) renew(begun clockReading) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left() <= 0 {
		return false
	}
	d.renewed = begun
	return true
}

// end notes that the Lease was lost or released.
func (d *leaseDeadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
}

// check returns the start of the last renewal and the time until the deadline, 0 if the Lease is
// not held.
func (d *leaseDeadline) check() (renewed clockReading, left time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.renewed, d.left()
}

// left returns the time until the deadline. d.mu is held.
func (d *leaseDeadline) left() time.Duration {
	if !d.held {
		return 0
	}
	left := d.renewDeadline - d.now().since(d.renewed)
	d.held = left > 0
	return left
}

// clockReading is a time by two clocks.
type clockReading struct {
	wall time.Time
	mono time.Duration // since the start of the process; stops while the machine is suspended
}

var processStart = time.Now()

func readClock() clockReading {
	t := time.Now()
	return clockReading{wall: t, mono: t.Sub(processStart)}
}

// since returns the time that has passed since an earlier reading, by the clock that advanced more.
// A holder that overestimates it stops early, which is safe.
func (r clockReading) since(earlier clockReading) time.Duration {
	// Round strips the monotonic reading, by which Sub would compare both.
	return max(r.mono-earlier.mono, r.wall.Round(0).Sub(earlier.wall.Round(0)))
}
