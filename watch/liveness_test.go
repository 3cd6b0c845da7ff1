package watch

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
)

// In quiet hours the position stays young enough to be replayed, although other
// things are written and etcd is compacted.
func TestPositionKeepsUpInQuietHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, event.Position{})
		synctest.Wait()
		for range 12 * 4 {
			before := a.version
			a.touch(100)
			time.Sleep(5 * time.Minute)
			if p := r.Position(); p.Version < before {
				t.Fatalf("position %s is older than five minutes", p)
			}
			a.compact()
		}
		a.write("b")
		synctest.Wait()
		wantStates(t, "taken", r.states(), "a@101", "b@4902")
		wantGrowing(t, r.journal.all())
		if n := a.asked("watch=true"); n > 4*60/2+1 {
			t.Errorf("%d watches in four hours", n)
		}
	})
}

// silent answers the first watch and then delivers nothing, until ctx ends or
// something is sent.
func silent(a *api, deliver chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	watches := 0
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		if watches++; watches > 1 {
			return false
		}
		flush(w)
		for {
			select {
			case <-deliver:
				a.frame(w, apiwatch.Added, a.stateAt("b", a.version))
			case <-r.Context().Done():
				return true
			}
		}
	}
}

func TestStalledWatchIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.intercept = silent(a, nil)
		r := run(a, at(101))
		synctest.Wait()
		a.write("b")
		a.write("b")
		time.Sleep(idleAfter + deliveryGrace)
		synctest.Wait()
		wantStates(t, "nothing is missed", r.states(), "b@102", "b@103")
		wantGrowing(t, r.journal.all())
	})
}

// A watch that is late is not stalled: it gets the time to deliver what a list
// shows.
func TestLateWatchIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		deliver := make(chan struct{})
		a.intercept = silent(a, deliver)
		r := run(a, at(101))
		synctest.Wait()
		a.write("b")
		time.Sleep(idleAfter + deliveryGrace - time.Second)
		deliver <- struct{}{}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantStates(t, "taken", r.states(), "b@102")
		if n := a.asked("watch=true"); n != 1 {
			t.Errorf("%d watches, want 1", n)
		}
	})
}

// What comes after a list had moved the position on is not lost: a state that
// was overwritten or deleted before the list cannot be seen in it.
func TestLaterThanTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.write("b")
		deliver := make(chan struct{})
		a.intercept = silent(a, deliver)
		a.set(func() { a.history, a.version = a.history[:1], 101 })
		r := run(a, at(101))
		synctest.Wait()
		a.touch(50)
		time.Sleep(idleAfter + deliveryGrace)
		synctest.Wait()
		wantPosition(t, r.position(), "uid-a/0@151")
		a.set(func() {
			e := *a.history[0].event
			e.Name, e.ResourceVersion = "b", "102"
			a.history = append(a.history, change{102, apiwatch.Added, &e})
		})
		deliver <- struct{}{}
		synctest.Wait()
		wantStates(t, "taken", r.states(), "b@102")
		wantPosition(t, r.position(), "uid-a/0@151")
	})
}

// That the list in a quiet minute fails is no reason to drop a watch that works.
func TestListInAQuietMinuteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if isPage(r) {
				a.fail(w, http.StatusTooManyRequests, "too many requests")
				return true
			}
			return false
		}
		r := run(a, at(100))
		time.Sleep(time.Hour)
		if n := a.asked("watch=true"); n > 31 {
			t.Errorf("%d watches in an hour", n)
		}
		if n := a.asked("limit=500"); n < 10 || n > 130 {
			t.Errorf("%d lists in an hour", n)
		}
		a.write("a")
		synctest.Wait()
		wantStates(t, "taken", r.states(), "a@101")
	})
}
