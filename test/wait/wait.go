// Package wait waits in tests for conditions that other goroutines or processes bring about.
package wait

import (
	"context"
	"testing"
	"time"
)

// Timeout is how long Until and Success wait: long enough for a slow, busy machine.
const Timeout = 2 * time.Minute

// The pause between two checks grows from the first to the second.
const (
	minPause = time.Millisecond
	maxPause = 100 * time.Millisecond
)

// Until waits until a condition holds, and fails the test after Timeout. The description
// completes the sentence "not within 2m0s: …".
func Until(t testing.TB, description string, holds func() bool) {
	t.Helper()
	if !Within(t.Context(), Timeout, holds) {
		t.Fatalf("not within %v: %s", Timeout, description)
	}
}

// Success repeats an attempt until it returns no error, and fails the test with the last
// error after Timeout.
func Success(t testing.TB, description string, attempt func() error) {
	t.Helper()
	var err error
	if !Within(t.Context(), Timeout, func() bool { err = attempt(); return err == nil }) {
		t.Fatalf("not within %v: %s: %v", Timeout, description, err)
	}
}

// Within waits until a condition holds, and reports whether it did before the time was up
// or ctx was done. It checks at least once.
func Within(ctx context.Context, timeout time.Duration, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for pause := minPause; !holds(); pause = min(2*pause, maxPause) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	return true
}
