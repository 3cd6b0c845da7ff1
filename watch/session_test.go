package watch

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// Each case is a way in which watches end, from the second watch on. The states a@102 and a@103 are
// written during the second one, b@104 after all.
func TestWatchEndings(t *testing.T) {
	t.Parallel()
	gone := func(a *api, w http.ResponseWriter, r *http.Request) {
		a.compact()
		fakeapi.SendFrame(w, r, apiwatch.Error, fakeapi.Status(http.StatusGone, "too old resource version: 101 (103)"))
	}
	cut := func(w http.ResponseWriter, sent []byte) {
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(sent)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	aFrame := func(a *api) []byte {
		e := *a.EventAt("default", "a", 101)
		e.ResourceVersion = "102"
		return fakeapi.EncodeFrame(apiwatch.Modified, &e, false)
	}
	everything := []string{"a@102", "a@103", "b@104"}
	latest := []string{"gap:too_old", "a@103", "b@104"}

	tests := map[string]struct {
		times  int // how many watches end like this
		ending func(a *api, w http.ResponseWriter, r *http.Request)
		want   []string
		within time.Duration // until the recovery
	}{
		"the server ends it": {
			times:  1,
			ending: func(_ *api, w http.ResponseWriter, r *http.Request) { flush(w); holdOpen(r, 10*time.Second) },
			want:   everything, within: 10 * time.Second,
		},
		"the server does not end it": {
			times:  1,
			ending: func(_ *api, w http.ResponseWriter, r *http.Request) { flush(w); holdOpen(r, time.Hour) },
			want:   everything, within: maxWatch + watchGrace,
		},
		"the server closes it at once, twice": {
			times:  2,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) { flush(w) },
			want:   everything, within: 2 * time.Second,
		},
		"the server closes it at once, always": {
			times:  3,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) { flush(w) },
			want:   latest, within: 2 * time.Second,
		},
		"too old, as an ERROR frame": {
			times:  1,
			ending: func(a *api, w http.ResponseWriter, r *http.Request) { gone(a, w, r) },
			want:   latest,
		},
		"too old, as the status": {
			times: 1,
			ending: func(a *api, w http.ResponseWriter, r *http.Request) {
				a.compact()
				fakeapi.Fail(w, r, http.StatusGone, "too old resource version")
			},
			want: latest,
		},
		"ERROR 500, twice": {
			times: 2,
			ending: func(a *api, w http.ResponseWriter, r *http.Request) {
				fakeapi.SendFrame(w, r, apiwatch.Error, fakeapi.Status(http.StatusInternalServerError, "etcd event received with PrevKv=nil"))
			},
			want: everything, within: 2 * time.Second,
		},
		"ERROR 500, always": {
			times: 3,
			ending: func(a *api, w http.ResponseWriter, r *http.Request) {
				fakeapi.SendFrame(w, r, apiwatch.Error, fakeapi.Status(http.StatusInternalServerError, "etcd event received with PrevKv=nil"))
			},
			want: latest, within: 2 * time.Second,
		},
		"status 500, always": {
			times: 3,
			ending: func(a *api, w http.ResponseWriter, r *http.Request) {
				fakeapi.Fail(w, r, http.StatusInternalServerError, "etcd event received with PrevKv=nil")
			},
			want: latest, within: 2 * time.Second,
		},
		"the connection is cut between two events": {
			times:  3,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) { cut(w, nil) },
			want:   everything, within: 4 * time.Second,
		},
		"the connection is cut in the middle of an event": {
			times: 3,
			ending: func(a *api, w http.ResponseWriter, _ *http.Request) {
				b := aFrame(a)
				cut(w, b[:len(b)/2])
			},
			want: everything, within: 4 * time.Second,
		},
		"garbage, twice": {
			times:  2,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\x00\x00\x02no")) },
			want:   everything, within: 2 * time.Second,
		},
		"garbage, always": {
			times:  3,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\x00\x00\x02no")) },
			want:   latest, within: 2 * time.Second,
		},
		"a frame that is too long": {
			times:  1,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x7a\x00\x00\x02no")) },
			want:   everything, within: time.Second,
		},
		"the server does not answer": {
			times:  1,
			ending: func(_ *api, _ http.ResponseWriter, r *http.Request) { holdOpen(r, time.Hour) },
			want:   everything, within: headerTimeout + time.Second,
		},
		"too many requests": {
			times: 1,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "7")
				http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			},
			want: everything, within: 8 * time.Second,
		},
		"a gateway without a server": {
			times: 4,
			ending: func(_ *api, w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "upstream connect error", http.StatusBadGateway)
			},
			want: everything, within: 8 * time.Second,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				watches := 0
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !fakeapi.IsWatch(r) {
						return false
					}
					watches++
					switch {
					case watches == 1:
						flush(w)
						holdOpen(r, 10*time.Second) // ended cleanly
						return true
					case watches > 1+test.times:
						return false
					case watches == 2:
						a.write("a")
						a.write("a")
					}
					test.ending(a, w, r)
					return true
				})
				r := run(a, at(101))
				time.Sleep(10*time.Second + test.within)
				synctest.Wait()
				a.write("b")
				synctest.Wait()
				wantStates(t, "emitted", r.states(), test.want...)
				wantGrowing(t, r.journal.all())
				if err := r.Ready(); err != nil {
					t.Errorf("not ready: %v", err)
				}
			})
		})
	}
}

// holdOpen waits until the client disconnects, for at most d.
func holdOpen(r *http.Request, d time.Duration) {
	select {
	case <-r.Context().Done():
	case <-time.After(d):
	}
}

func flush(w http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
}

// States that the API server, or a proxy, sends twice are emitted once.
func TestServerReplaysTooMuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.write("b")
		a.remove("b")
		a.write("c")
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			if q.Get("watch") != "" {
				fakeapi.SendFrame(w, r, apiwatch.Added, a.EventAt("default", "c", 104))
				q.Set("resourceVersion", "0")
				r.URL.RawQuery = q.Encode()
			}
			return false
		})
		r := run(a, at(102))
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "c@104")
		_ = r.stop()
		if !strings.Contains(r.log.String(), "emitted=1 already_seen=3") {
			t.Error("skipped states are not logged at the end")
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		for name, request := range map[string]string{"watch": "watch=true", "list": "limit=500", "uid": "kube-system"} {
			a.ForgetRequests()
			a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.RequestURI(), request) || a.CountRequests(request) > 1 {
					return false
				}
				w.Header().Set("Retry-After", "40")
				http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
				return true
			})
			r := run(a, event.Position{})
			time.Sleep(39 * time.Second)
			if n := a.CountRequests(request); n != 1 {
				t.Errorf("%s: %d requests in 39 seconds, Retry-After is 40", name, n)
			}
			time.Sleep(2 * time.Second)
			if n := a.CountRequests(request); n != 2 {
				t.Errorf("%s: %d requests in 41 seconds", name, n)
			}
			wantStates(t, name, r.states(), "a@101")
			_ = r.stop()
		}
	})
}

// A proxy that closes silent watches causes no gap.
func TestClosedAtOnceWithNothingNewIsNoGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Advance(50)
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !fakeapi.IsWatch(r) || r.URL.Query().Get("resourceVersion") != "101" {
				return false
			}
			flush(w)
			return true
		})
		r := run(a, at(101))
		time.Sleep(5 * time.Second)
		a.write("b")
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "b@152")
	})
}

// A working watch in between resets the count of watches that were closed at once.
func TestOccasionallyClosedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		watches := 0
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !fakeapi.IsWatch(r) {
				return false
			}
			flush(w)
			if watches++; watches%maxFailedWatches == 0 {
				holdOpen(r, 10*time.Second)
			}
			return true
		})
		run(a, at(100))
		time.Sleep(time.Minute)
		if n := a.CountRequests("limit=500"); n != 0 {
			t.Errorf("%d lists", n)
		}
		if n := a.CountRequests("watch=true"); n < 6 {
			t.Errorf("%d watches", n)
		}
	})
}
