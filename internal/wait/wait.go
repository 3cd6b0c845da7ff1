// Package wait has the two waits that goroutines share: a pause that a context ends, and a
// wake-up that is never lost.
package wait

import (
	"context"
	"time"
)

// Sleep pauses for d. It returns ctx's error if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Notify wakes the reader of c, a channel of capacity one, and never blocks. Wake-ups that the
// reader has not seen yet count as one.
func Notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
