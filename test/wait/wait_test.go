package wait

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestConditionHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		since := func(d time.Duration) bool { return time.Since(start) >= d }
		Until(t, "90 s have passed", func() bool { return since(90 * time.Second) })
		if late := time.Since(start) - 90*time.Second; late > maxPause {
			t.Errorf("noticed after %v", late)
		}
		Success(t, "100 s have passed", func() error {
			if !since(100 * time.Second) {
				return errors.New("too early")
			}
			return nil
		})
	})
}

func TestTimeoutFailsTheTest(t *testing.T) {
	for _, c := range []struct {
		name, want string
		wait       func(testing.TB)
	}{
		{"Until", "not within 2m0s: it rains", func(t testing.TB) { Until(t, "it rains", func() bool { return false }) }},
		{"Success", "not within 2m0s: it rains: dry", func(t testing.TB) { Success(t, "it rains", func() error { return errors.New("dry") }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, failing := time.Now(), &recorder{TB: t}
				done := make(chan struct{})
				go func() {
					defer close(done)
					c.wait(failing)
				}()
				<-done
				if got := strings.Join(failing.failures, "\n"); got != c.want || time.Since(start) != Timeout {
					t.Errorf("%q after %v, want %q after %v", got, time.Since(start), c.want, Timeout)
				}
			})
		})
	}
}

// recorder records failures instead of failing the test.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
	runtime.Goexit()
}
