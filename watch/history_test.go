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
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

func TestRestored(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		quiet time.Duration // until it is detected
		how   func(a *api, drop func())
	}{
		"while the watch was down":       {quiet: 5 * time.Second, how: func(_ *api, drop func()) { drop() }},
		"behind a watch that stays open": {quiet: idleAfter + 5*time.Second, how: func(*api, func()) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				a.write("b")
				dropped := make(chan struct{})
				watches := 0
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !fakeapi.IsWatch(r) {
						return false
					}
					if watches++; watches > 1 {
						return false
					}
					flush(w)
					fakeapi.SendFrame(w, r, apiwatch.Added, a.EventAt("default", "b", 102))
					select {
					case <-dropped:
					case <-r.Context().Done():
					}
					return true
				})
				r := run(a, at(101))
				synctest.Wait()
				wantStates(t, "before", r.states(), "b@102")
				a.Restore(101)
				test.how(a, func() { close(dropped) })
				time.Sleep(test.quiet)
				synctest.Wait()
				a.write("c")
				synctest.Wait()
				wantStates(t, "all again, after a gap record", r.states(), "b@102", "gap:restored", "a@101", "c@102")
				wantPosition(t, r.position(), "uid-a/1@102")
				gap := r.journal.all()[1]
				wantPosition(t, gap.Position, "uid-a/1@0+list@101")
			})
		})
	}
}

func TestRestoredDuringAList(t *testing.T) {
	t.Parallel()
	listing := func(version uint64) event.Position {
		return event.Position{Epoch: at(0).Epoch, ListVersion: version}
	}
	for name, test := range map[string]struct {
		start event.Position
		want  []string // before the restored states
		end   string
	}{
		"the first one":          {event.Position{}, nil, "uid-a/0@700"},
		"one after a gap":        {at(750), []string{"gap:restored"}, "uid-a/1@700"},
		"one that is read again": {listing(800), []string{"gap:restored"}, "uid-a/1@700"},
		"one from the future":    {listing(900), []string{"gap:restored"}, "uid-a/1@700"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				want := append(test.want, writeMany(a, 600)...)
				for range 100 {
					a.write("later")
				}
				a.Compact(760)
				pages := 0
				a.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("continue") != "" {
						if pages++; pages == 1 {
							a.Restore(700)
						}
					}
					return false
				})
				if test.start.ListVersion == 900 {
					a.Restore(700)
				}
				r := run(a, test.start)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				wantStates(t, "emitted", r.states(), want...)
				wantPosition(t, r.position(), test.end)
			})
		})
	}
}

func TestOtherCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.SetClusterUID("uid-b")
		r := run(a, event.Position{Epoch: event.Epoch{Cluster: "uid-a", Restores: 3}, Version: 5000, Time: time.Unix(1, 0)})
		synctest.Wait()
		a.write("b")
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "gap:other_cluster", "a@101", "b@102")
		wantPosition(t, r.position(), "uid-b/0@102")
		if at := r.journal.all()[0].Event.Annotations["hindsight/from_version"]; at != "5000" {
			t.Errorf("gap from version %s", at)
		}
	})
}

// Another cluster takes over the address while a watch of the first one stays open. The check
// before the next watch, within minutes, detects it.
func TestOtherClusterBehindAnOpenWatch(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]uint64{"with lower versions": 0, "with higher versions": 5000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				a.write("b")
				a.Intercept(silent(a, nil))
				r := run(a, at(102))
				time.Sleep(minOpenTime)
				a.Replace("uid-b", ahead)
				x := fmt.Sprintf("x@%d", a.write("x"))
				time.Sleep(idleAfter + deliveryGrace + minBackoff)
				synctest.Wait()
				wantStates(t, "emitted", r.states(), "gap:other_cluster", x)
				wantPosition(t, r.position(), fmt.Sprintf("uid-b/0@%d", ahead+1))
				if n := a.CountRequests("watch=true"); n != 2 {
					t.Errorf("%d watches, want 2", n)
				}
			})
		})
	}
}

// etcd is restored to a version between the positions of the sinks.
func TestRestoredBetweenTheSinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		for range 10 {
			a.write("a")
		}
		a.Intercept(silent(a, nil))
		r := run(a, at(110), sinksAt(map[string]event.Position{"slow": at(103)}))
		time.Sleep(minOpenTime)
		a.Restore(107)
		time.Sleep(idleAfter + deliveryGrace + minBackoff)
		synctest.Wait()
		wantStates(t, "emitted", addressed(r.journal.all()), "gap:restored", "a@107")
		wantPosition(t, r.position(), "uid-a/1@107")
	})
}

// The permission to read the uid comes and goes: nothing is read again.
func TestUnknownCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.SetClusterUID("")
		first := run(a, event.Position{})
		synctest.Wait()
		wantPosition(t, first.position(), "-/0@101")
		time.Sleep(time.Hour)
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		if n := a.CountRequests("kube-system"); n != 1 {
			t.Errorf("the uid was requested %d times", n)
		}
		if n := strings.Count(first.log.String(), "kube-system"); n != 1 {
			t.Errorf("logged %d times", n)
		}

		a.SetClusterUID("uid-a")
		a.write("b")
		second := run(a, first.position())
		synctest.Wait()
		wantStates(t, "emitted after the permission was granted", second.states(), "b@102")
		wantPosition(t, second.position(), "uid-a/0@102")
		_ = second.stop()

		a.SetClusterUID("")
		a.write("c")
		third := run(a, second.position())
		synctest.Wait()
		wantStates(t, "emitted after the permission was revoked", third.states(), "c@103")
		wantPosition(t, third.position(), "uid-a/0@103")
	})
}

// A denied uid is requested again after an hour, so that a later permission makes another cluster
// visible.
func TestDeniedUIDIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.SetClusterUID("")
		r := run(a, at(101))
		time.Sleep(50 * time.Minute)
		if n := a.CountRequests("kube-system"); n != 1 {
			t.Errorf("the uid was requested %d times in 50 minutes", n)
		}
		a.SetClusterUID("uid-b")
		time.Sleep(10*time.Minute + maxWatch)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "gap:other_cluster", "a@101")
		wantPosition(t, r.position(), "uid-b/0@101")
	})
}
