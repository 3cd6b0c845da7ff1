package watch

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
)

func TestRestored(t *testing.T) {
	for name, test := range map[string]struct {
		quiet time.Duration // until it is noticed
		how   func(a *api, drop func())
	}{
		"while the watch was down":       {quiet: 5 * time.Second, how: func(_ *api, drop func()) { drop() }},
		"behind a watch that stays open": {quiet: idleAfter + 5*time.Second, how: func(*api, func()) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				a.write("b")
				dropped := make(chan struct{})
				watches := 0
				a.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("watch") == "" {
						return false
					}
					if watches++; watches > 1 {
						return false
					}
					flush(w)
					a.frame(w, apiwatch.Added, a.stateAt("b", 102))
					select {
					case <-dropped:
					case <-r.Context().Done():
					}
					return true
				}
				r := run(a, at(101))
				synctest.Wait()
				wantStates(t, "before", r.states(), "b@102")
				a.restore(101)
				test.how(a, func() { close(dropped) })
				time.Sleep(test.quiet)
				synctest.Wait()
				a.write("c")
				synctest.Wait()
				wantStates(t, "everything again, behind a gap", r.states(), "b@102", "gap:restored", "a@101", "c@102")
				wantPosition(t, r.position(), "uid-a/1@102")
				gap := r.journal.all()[1]
				wantPosition(t, gap.Position, "uid-a/1@0+list@101")
			})
		})
	}
}

func TestRestoredDuringAList(t *testing.T) {
	listing := func(version uint64) event.Position {
		return event.Position{Epoch: at(0).Epoch, ListVersion: version}
	}
	for name, test := range map[string]struct {
		start event.Position
		want  []string // before everything that was restored
		end   string
	}{
		"the first one":               {event.Position{}, nil, "uid-a/0@700"},
		"one that closes a gap":       {at(750), []string{"gap:restored"}, "uid-a/1@700"},
		"one that is read again":      {listing(800), []string{"gap:restored"}, "uid-a/1@700"},
		"one that is no longer known": {listing(900), []string{"gap:restored"}, "uid-a/1@700"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				want := append(test.want, writeMany(a, 600)...)
				for range 100 {
					a.write("later")
				}
				a.compacted = 760
				pages := 0
				a.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("continue") != "" {
						if pages++; pages == 1 {
							a.restore(700)
						}
					}
					return false
				}
				if test.start.ListVersion == 900 {
					a.restore(700)
				}
				r := run(a, test.start)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				wantStates(t, "taken", r.states(), want...)
				wantPosition(t, r.position(), test.end)
			})
		})
	}
}

func TestOtherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.uid = "uid-b"
		r := run(a, event.Position{Epoch: event.Epoch{Cluster: "uid-a", Restores: 3}, Version: 5000, Time: time.Unix(1, 0)})
		synctest.Wait()
		a.write("b")
		synctest.Wait()
		wantStates(t, "taken", r.states(), "gap:other_cluster", "a@101", "b@102")
		wantPosition(t, r.position(), "uid-b/0@102")
		if at := r.journal.all()[0].Event.Annotations["hindsight/from_version"]; at != "5000" {
			t.Errorf("gap from version %s", at)
		}
	})
}

// Another cluster takes the address while a watch of the first one is open and
// stays so: it is noticed with the next watch, which comes within minutes.
func TestOtherClusterBehindAnOpenWatch(t *testing.T) {
	for name, ahead := range map[string]uint64{"with lower versions": 0, "with higher versions": 5000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				a.write("b")
				a.intercept = silent(a, nil)
				r := run(a, at(102))
				time.Sleep(minOpenTime)
				a.set(func() { a.uid, a.history, a.version = "uid-b", nil, ahead })
				x := fmt.Sprintf("x@%d", a.write("x"))
				time.Sleep(idleAfter + deliveryGrace + minBackoff)
				synctest.Wait()
				wantStates(t, "taken", r.states(), "gap:other_cluster", x)
				wantPosition(t, r.position(), fmt.Sprintf("uid-b/0@%d", ahead+1))
				if n := a.asked("watch=true"); n != 2 {
					t.Errorf("%d watches, want 2", n)
				}
			})
		})
	}
}

// etcd goes back to a version that is newer than that of the sink which stands
// behind, but not than that of the others.
func TestRestoredBetweenTheSinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		for range 10 {
			a.write("a")
		}
		a.intercept = silent(a, nil)
		r := run(a, at(110), sinksAt(map[string]event.Position{"slow": at(103)}))
		time.Sleep(minOpenTime)
		a.restore(107)
		time.Sleep(idleAfter + deliveryGrace + minBackoff)
		synctest.Wait()
		wantStates(t, "taken", addressed(r.journal.all()), "gap:restored", "a@107")
		wantPosition(t, r.position(), "uid-a/1@107")
	})
}

// Not to be allowed to read the uid, and to be allowed later, changes nothing.
func TestUnknownCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.uid = ""
		first := run(a, event.Position{})
		synctest.Wait()
		wantPosition(t, first.position(), "-/0@101")
		time.Sleep(time.Hour)
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		if n := a.asked("kube-system"); n != 1 {
			t.Errorf("asked %d times for what is forbidden", n)
		}
		if n := strings.Count(first.log.String(), "kube-system"); n != 1 {
			t.Errorf("said %d times", n)
		}

		a.uid = "uid-a"
		a.write("b")
		second := run(a, first.position())
		synctest.Wait()
		wantStates(t, "taken after the uid was learned", second.states(), "b@102")
		wantPosition(t, second.position(), "uid-a/0@102")
		_ = second.stop()

		a.uid = ""
		a.write("c")
		third := run(a, second.position())
		synctest.Wait()
		wantStates(t, "taken after it was forbidden again", third.states(), "c@103")
		wantPosition(t, third.position(), "uid-a/0@103")
	})
}

// A uid that may not be read is asked for once an hour, so that another cluster is
// noticed once it may.
func TestUIDIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.uid = ""
		r := run(a, at(101))
		time.Sleep(50 * time.Minute)
		if n := a.asked("kube-system"); n != 1 {
			t.Errorf("asked for the uid %d times in 50 minutes", n)
		}
		a.set(func() { a.uid = "uid-b" })
		time.Sleep(10*time.Minute + maxWatch)
		synctest.Wait()
		wantStates(t, "taken", r.states(), "gap:other_cluster", "a@101")
		wantPosition(t, r.position(), "uid-b/0@101")
	})
}
