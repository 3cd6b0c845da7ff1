package watch

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// In quiet hours the position advances, so that it can be replayed although other objects are
// written and etcd is compacted.
func TestPositionAdvancesInQuietHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, event.Position{})
		synctest.Wait()
		for range 12 * 4 {
			before := a.Version()
			a.Advance(100)
			time.Sleep(5 * time.Minute)
			if p := r.Position(); p.Version < before {
				t.Fatalf("position %s is older than five minutes", p)
			}
			a.compact()
		}
		a.write("b")
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "a@101", "b@4902")
		wantGrowing(t, r.journal.all())
		if n := a.CountRequests("watch=true"); n > 4*60/2+1 {
			t.Errorf("%d watches in four hours", n)
		}
	})
}

// silent opens the first watch and sends nothing, except the Event b for each value of deliver.
func silent(a *api, deliver chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	watches := 0
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !fakeapi.IsWatch(r) {
			return false
		}
		if watches++; watches > 1 {
			return false
		}
		flush(w)
		for {
			select {
			case <-deliver:
				fakeapi.SendFrame(w, r, apiwatch.Added, a.state("b"))
			case <-r.Context().Done():
				return true
			}
		}
	}
}

func TestSilentWatchIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Intercept(silent(a, nil))
		r := run(a, at(101))
		synctest.Wait()
		a.write("b")
		a.write("b")
		time.Sleep(idleAfter + deliveryGrace)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "b@102", "b@103")
		wantGrowing(t, r.journal.all())
	})
}

// A watch that delivers a listed state within deliveryGrace is kept.
func TestLateWatchIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		deliver := make(chan struct{})
		a.Intercept(silent(a, deliver))
		r := run(a, at(101))
		synctest.Wait()
		a.write("b")
		time.Sleep(idleAfter + deliveryGrace - time.Second)
		deliver <- struct{}{}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "b@102")
		if n := a.CountRequests("watch=true"); n != 1 {
			t.Errorf("%d watches, want 1", n)
		}
	})
}

// A state that arrives after a list has advanced the position past it is not lost: it may have been
// overwritten or deleted before the list.
func TestOlderStateAfterAList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		deliver := make(chan struct{})
		a.Intercept(silent(a, deliver))
		r := run(a, at(101))
		synctest.Wait()
		a.Advance(50)
		time.Sleep(idleAfter + deliveryGrace)
		synctest.Wait()
		wantPosition(t, r.position(), "uid-a/0@151")
		e := a.newEvent("b")
		e.ResourceVersion = "102"
		a.Append(fakeapi.Change{Version: 102, Type: apiwatch.Added, Event: e})
		deliver <- struct{}{}
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "b@102")
		wantPosition(t, r.position(), "uid-a/0@151")
	})
}

// A failed list in a quiet minute does not close a working watch.
func TestListInAQuietMinuteFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if isPage(r) {
				fakeapi.Fail(w, r, http.StatusTooManyRequests, "too many requests")
				return true
			}
			return false
		})
		r := run(a, at(100))
		time.Sleep(time.Hour)
		if n := a.CountRequests("watch=true"); n > 31 {
			t.Errorf("%d watches in an hour", n)
		}
		if n := a.CountRequests("limit=500"); n < 10 || n > 130 {
			t.Errorf("%d lists in an hour", n)
		}
		a.write("a")
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "a@101")
	})
}
