package watch

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// at returns a position in the first epoch of the fake cluster.
func at(version uint64) event.Position {
	return event.Position{Epoch: event.Epoch{Cluster: "uid-a"}, Version: version}
}

func wantStates(t *testing.T, description string, got []string, want ...string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	same := 0
	for same < min(len(got), len(want)) && got[same] == want[same] {
		same++
	}
	from := max(0, same-2)
	t.Errorf("%s: %d, want %d; they differ at %d:\n got %q\nwant %q", description, len(got), len(want), same,
		got[from:min(len(got), from+12)], want[from:min(len(want), from+12)])
}

func wantPosition(t *testing.T, got event.Position, want string) {
	t.Helper()
	if got.String() != want {
		t.Errorf("position %s, want %s", got, want)
	}
}

// wantGrowing checks that the position never goes back and that no state repeats.
func wantGrowing(t *testing.T, records []event.Record) {
	t.Helper()
	seen := map[string]bool{}
	for i, r := range records {
		if i > 0 && r.Position.Epoch == records[i-1].Position.Epoch && r.Position.Version < records[i-1].Position.Version {
			t.Errorf("position goes back from %s to %s", records[i-1].Position, r.Position)
		}
		if r.Event != nil && !r.Gap {
			id := r.Position.Epoch.String() + "/" + r.Event.Name + "@" + r.Event.ResourceVersion
			if seen[id] {
				t.Errorf("%s was emitted twice", id)
			}
			seen[id] = true
		}
	}
}

func TestFirstStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("z")
		a.write("a")
		a.write("z")
		r := run(a, event.Position{})
		synctest.Wait()
		wantStates(t, "listed, in the order of versions", r.states(), "a@102", "z@103")
		wantPosition(t, r.position(), "uid-a/0@103")

		a.write("a")
		a.write("b")
		synctest.Wait()
		a.remove("z")
		time.Sleep(time.Hour)
		a.write("c")
		synctest.Wait()
		wantStates(t, "watched", r.states(), "a@102", "z@103", "a@104", "b@105", "c@107")
		wantGrowing(t, r.journal.all())
		for _, rec := range r.journal.all() {
			if rec.Event != nil && (len(rec.Event.ManagedFields) != 0 || rec.Event.Message != "message of "+rec.Event.Name) {
				t.Errorf("Event differs from the written one: %v", rec.Event)
			}
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if n := a.CountRequests("limit=500"); n > 40 {
			t.Errorf("%d lists in a quiet hour", n)
		}
	})
}

func TestEmptyClusterHasAPosition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := run(a, event.Position{})
		synctest.Wait()
		wantPosition(t, r.position(), "uid-a/0@100")
		if a.CountRequests("") != 3 || a.CountRequests("kube-system") != 1 || a.CountRequests("limit=500") != 1 || a.CountRequests("watch=true", "resourceVersion=100&") != 1 {
			t.Errorf("requests %q, want one each for the uid, a list, and a watch from its version", a.Requests())
		}
	})
}

func TestOneNamespace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, event.Position{}, func(o *Options) { o.Namespace = "default" })
		synctest.Wait()
		a.write("b")
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "a@101", "b@102")
		for _, rec := range r.journal.all() {
			if rec.Source != "default" {
				t.Errorf("record at %s of source %q", rec.Position, rec.Source)
			}
		}
		if n := a.CountRequests("/api/v1/events"); n != 0 {
			t.Errorf("%d requests for all namespaces", n)
		}
	})
}

// A restart resumes at its position, without a list.
func TestResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.write("a")
		a.write("b")
		r := run(a, at(101))
		synctest.Wait()
		wantStates(t, "replayed", r.states(), "a@102", "b@103")
		if n := a.CountRequests("limit=500"); n != 0 {
			t.Errorf("%d lists", n)
		}
	})
}

func TestForbidden(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		var granted atomic.Bool
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !fakeapi.IsWatch(r) || granted.Load() {
				return false
			}
			fakeapi.Fail(w, r, http.StatusForbidden, `events is forbidden: User "system:serviceaccount:default:hindsight" cannot watch resource "events" in API group "" at the cluster scope`)
			return true
		})
		a.write("a")
		r := run(a, event.Position{})
		time.Sleep(10 * time.Minute)
		err := r.Ready()
		if err == nil || !strings.Contains(err.Error(), `cannot watch resource "events"`) {
			t.Errorf("ready: %v; want the missing permission", err)
		}
		if n := a.CountRequests("watch=true"); n > 60 {
			t.Errorf("%d watches in 10 minutes without permission", n)
		}
		log := r.log.String()
		if n := strings.Count(log, "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		if !strings.Contains(log, "ClusterRole") || !strings.Contains(log, "verbs [list, watch]") {
			t.Error("the log has no hint about the permission")
		}

		granted.Store(true)
		time.Sleep(deniedBackoff)
		time.Sleep(minOpenTime)
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Errorf("not ready after permission was granted: %v", err)
		}
		if n := strings.Count(r.log.String(), "works again"); n != 1 {
			t.Errorf("recovery was logged %d times", n)
		}
		a.write("b")
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "a@101", "b@102")
	})
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		var up atomic.Bool
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !up.Load() {
				panic(http.ErrAbortHandler)
			}
			return false
		})
		r := run(a, at(100))
		time.Sleep(4 * time.Minute)
		if err := r.Ready(); err != nil {
			t.Errorf("unready after 4 minutes: %v", err)
		}
		if !r.LastContact().IsZero() {
			t.Errorf("contact at %s", r.LastContact())
		}
		time.Sleep(2 * time.Minute)
		if err := r.Ready(); err == nil {
			t.Error("ready although the API server cannot be reached for 6 minutes")
		}
		if age := time.Since(r.LastHeartbeat()); age > time.Minute {
			t.Errorf("no heartbeat for %s", age)
		}
		if n := a.CountRequests(""); n < 15 || n > 60 {
			t.Errorf("%d requests in 6 minutes", n)
		}
		up.Store(true)
		time.Sleep(maxBackoff + minOpenTime)
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		if age := time.Since(r.LastContact()); age > maxBackoff+minOpenTime {
			t.Errorf("no contact for %s", age)
		}
	})
}

func TestHandleFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, event.Position{})
		synctest.Wait()
		broken := errors.New("journal is broken")
		r.journal.mu.Lock()
		r.journal.err = broken
		r.journal.mu.Unlock()
		a.write("b")
		synctest.Wait()
		if err := r.stop(); !errors.Is(err, broken) {
			t.Errorf("Run returned %v, want %v", err, broken)
		}
		wantPosition(t, r.Position(), "uid-a/0@101")
	})
}

// Deletions only move the position.
func TestDeletions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		for _, name := range []string{"a", "b", "c"} {
			a.write(name)
		}
		r := run(a, at(103))
		synctest.Wait()
		for _, name := range []string{"a", "b", "c"} {
			a.remove(name)
		}
		time.Sleep(positionFlushInterval)
		synctest.Wait()
		wantStates(t, "emitted", r.states())
		if n := len(r.journal.all()); n != 1 {
			t.Errorf("%d records for consecutive deletions, want 1", n)
		}
		wantPosition(t, r.position(), "uid-a/0@106")
	})
}

// An Event that cannot be decoded is counted and skipped.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		bad := *a.EventAt("default", "a", 101)
		bad.ResourceVersion = "102"
		raw := append(must(bad.Marshal()), 8<<3|2, 0) // its count as a string
		a.Advance(1)
		a.write("b")
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			switch q := r.URL.Query(); {
			case q.Get("watch") != "" && q.Get("resourceVersion") == "101":
				fakeapi.SendFrame(w, r, apiwatch.Added, rawObject(raw))
				fakeapi.SendFrame(w, r, apiwatch.Added, a.EventAt("default", "b", 103))
			default:
				return false
			}
			return true
		})
		reg := prometheus.NewRegistry()
		r := run(a, at(101), func(o *Options) { o.Metrics = NewMetrics(reg) })
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "b@103")
		err := testutil.GatherAndCompare(reg, strings.NewReader(`
			# HELP hindsight_watch_skipped_total States of Events read and not stored, by reason: seen (before) or undecodable.
			# TYPE hindsight_watch_skipped_total counter
			hindsight_watch_skipped_total{reason="seen",source=""} 0
			hindsight_watch_skipped_total{reason="undecodable",source=""} 1
		`), "hindsight_watch_skipped_total")
		if err != nil {
			t.Error(err)
		}
	})
}

// rawObject is an encoded object.
type rawObject []byte

func (o rawObject) Marshal() ([]byte, error) { return o, nil }
