//go:build e2e

package chaos

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// history records the faults and logs events of a test. It is safe for concurrent use.
type history struct {
	t     *testing.T
	began time.Time

	mu     sync.Mutex // guards the rest
	faults []injectedFault
}

// injectedFault is an entry of the history.
type injectedFault struct {
	number   int
	name     string
	from, to time.Time // to is zero until it ends
}

// note logs a message with the time.
func (h *history) note(format string, args ...any) {
	h.t.Helper()
	now := time.Now()
	h.t.Logf("%s %+6.1fs  %s", clock(now), now.Sub(h.began).Seconds(), fmt.Sprintf(format, args...))
}

func (h *history) begin(number int, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, injectedFault{number: number, name: name, from: time.Now()})
}

// end ends the last fault.
func (h *history) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[len(h.faults)-1].to = time.Now()
}

// faultBegan returns the start of the last fault.
func (h *history) faultBegan() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults[len(h.faults)-1].from
}

// during describes the fault in effect at a time.
func (h *history) during(at time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	when := "before the first fault"
	for _, f := range h.faults {
		if at.Before(f.from) {
			break
		}
		if f.to.IsZero() || at.Before(f.to) {
			return fmt.Sprintf("during fault %d (%s), which began at %s", f.number, f.name, clock(f.from))
		}
		when = fmt.Sprintf("after fault %d (%s), which ended at %s", f.number, f.name, clock(f.to))
	}
	return when
}
