//go:build e2e

package watch

import (
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// An API server that caches Events cannot replay after a restart. That causes a list and a gap, but
// loses no state that it still holds.
func TestAPIServerCachesEvents(t *testing.T) {
	t.Parallel()
	s := &server{Cluster: cluster.ForTest(t, cluster.Options{APIServerFlags: []string{"--watch-cache-sizes=events#1000"}})}
	s.client = clientFor(t, s.Config())
	r := s.follow(t, s.Config(), s.here(t))
	want := s.mustWrite(t, "a", "b", "a")
	wantEventually(t, r, want...)
	time.Sleep(5 * time.Second) // other objects are written, so the position is not the newest version
	if err := s.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := s.mustWrite(t, "a", "c")
	wait.Within(t.Context(), wait.Timeout, func() bool { return strings.HasSuffix(strings.Join(r.states(), " "), last[1]) })
	got := r.states()
	t.Logf("emitted: %q", got)
	if n := len(gapRecords(r)); n > 1 {
		t.Errorf("%d gaps", n)
	}
	wantGrowing(t, r.journal.all())
	states := got[:0]
	for _, state := range got {
		if !strings.HasPrefix(state, "gap:") {
			states = append(states, state)
		}
	}
	wantStates(t, "emitted", states, append(want, last...)...)
}
