package watch

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// writeMany writes n Events. Their names, and therefore a list, are not in version order.
func writeMany(a *api, n int) (want []string) {
	for i := range n {
		name := fmt.Sprintf("e%05d", (i*7919)%n)
		want = append(want, fmt.Sprintf("%s@%d", name, a.write(name)))
	}
	return want
}

func TestPages(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		// intercept answers the n-th request for a page (from 1), or returns false.
		intercept func(a *api, n int, w http.ResponseWriter, r *http.Request) bool
		requests  int // for pages
	}{
		"no failure": {requests: 2},
		"the first page is cut off": {
			intercept: func(a *api, n int, w http.ResponseWriter, r *http.Request) bool {
				return n == 1 && half(a, w, r)
			},
			requests: 3,
		},
		"a later page is cut off, twice": {
			intercept: func(a *api, n int, w http.ResponseWriter, r *http.Request) bool {
				return (n == 2 || n == 3) && half(a, w, r)
			},
			requests: 4,
		},
		"a page stops in the middle": {
			intercept: func(a *api, n int, w http.ResponseWriter, r *http.Request) bool {
				if n != 2 {
					return false
				}
				var page recorder
				a.Serve(&page, r)
				_, _ = w.Write(page.body[:len(page.body)/2])
				w.(http.Flusher).Flush()
				holdOpen(r, time.Hour)
				return true
			},
			requests: 3,
		},
		"a page is never answered": {
			intercept: func(_ *api, n int, _ http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					holdOpen(r, time.Hour)
				}
				return n == 1
			},
			requests: 3,
		},
		"the token expires and cannot be continued": {
			intercept: func(a *api, n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 2 {
					a.Advance(10)
					fakeapi.Fail(w, r, http.StatusGone, "the continue token has expired")
				}
				return n == 2
			},
			requests: 4,
		},
		"the token is unknown": {
			intercept: func(a *api, n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 2 {
					fakeapi.Fail(w, r, http.StatusBadRequest, "continue key is not valid")
				}
				return n == 2
			},
			requests: 4,
		},
		"too many requests": {
			intercept: func(a *api, n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 2 {
					w.Header().Set("Retry-After", "20")
					fakeapi.Fail(w, r, http.StatusTooManyRequests, "too many requests")
				}
				return n == 2
			},
			requests: 3,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				want := writeMany(a, 700)
				n := 0
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !isPage(r) {
						return false
					}
					n++
					return test.intercept != nil && test.intercept(a, n, w, r)
				})
				r := run(a, event.Position{})
				time.Sleep(listHeaderTimeout + time.Second)
				synctest.Wait()
				wantStates(t, "emitted", r.states(), want...)
				wantGrowing(t, r.journal.all())
				wantPosition(t, r.position(), "uid-a/0@800")
				if n != test.requests {
					t.Errorf("%d requests, want %d", n, test.requests)
				}
			})
		})
	}
}

// isPage reports whether a request is for a page of a list, but not a probe with limit=1.
func isPage(r *http.Request) bool {
	limit := r.URL.Query().Get("limit")
	return limit != "" && limit != "1"
}

// half sends half a page.
func half(a *api, w http.ResponseWriter, r *http.Request) bool {
	var page recorder
	a.Serve(&page, r)
	_, _ = w.Write(page.body[:len(page.body)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// recorder records a response.
type recorder struct {
	header http.Header
	body   []byte
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) Write(p []byte) (int, error) { r.body = append(r.body, p...); return len(p), nil }
func (r *recorder) WriteHeader(int)             {}

// States that are written during a list are emitted once, by the watch after the list.
func TestWritesDuringAList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		want := writeMany(a, 700)
		n := 0
		a.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if isPage(r) {
				if n++; n == 2 {
					// The list is continued at a version that shows the next writes.
					want = append(want, fmt.Sprintf("z@%d", a.write("z")), fmt.Sprintf("e00699@%d", a.write("e00699")))
					a.Advance(1)
					a.compact()
				}
			}
			return false
		})
		r := run(a, event.Position{})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		// The version of the list is compacted, so the watch from it is too old.
		got := slices.DeleteFunc(r.states(), func(s string) bool { return s == "gap:too_old" })
		want = slices.DeleteFunc(want, func(s string) bool {
			return strings.HasPrefix(s, "e00699@") && s != want[len(want)-1]
		})
		wantStates(t, "emitted", got, want...)
		wantGrowing(t, r.journal.all())
	})
}

// From the position of any record, exactly the records after it are emitted again.
func TestResumeFromEveryRecord(t *testing.T) {
	t.Parallel()
	for name, compacted := range map[string]bool{"the list can be read again": false, "the version of the list is compacted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("old")
				a.compact()
				a.write("b")
				a.write("a")
				// From 50 there is a gap.
				r := run(a, at(50))
				synctest.Wait()
				listed := len(r.journal.all())
				a.write("c")
				a.write("a")
				if compacted {
					a.Advance(1)
					a.compact()
				}
				a.write("a")
				a.remove("old")
				a.write("d")
				time.Sleep(positionFlushInterval)
				synctest.Wait()
				_ = r.stop()
				all := r.journal.all()
				wantStates(t, "initially", states(all[:listed]), "gap:too_old", "old@101", "b@102", "a@103")

				for i, rec := range all {
					again := run(a, rec.Position)
					time.Sleep(positionFlushInterval)
					synctest.Wait()
					want := states(all[i+1:])
					if max(rec.Position.Version, rec.Position.ListVersion) < a.Compacted() {
						// Only the latest state of each Event is left.
						want = slices.DeleteFunc(want, func(s string) bool { return s == "a@103" || s == "a@105" || s == "old@101" })
						want = append([]string{"gap:too_old"}, want...)
					}
					wantStates(t, fmt.Sprintf("record %d: resumed from %s", i, rec.Position), again.states(), want...)
					wantPosition(t, again.Position(), all[len(all)-1].Position.String())
					_ = again.stop()
				}
			})
		})
	}
}

// The same for a list that exceeds the space for sorting: nothing is lost, although states may
// repeat.
func TestSortOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.padding = strings.Repeat("x", 10<<10) // so that each page fills a run
		want := writeMany(a, 1200)
		n := 0
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if q := r.URL.Query(); isPage(r) {
				n++
				q.Set("limit", "500") // so that there are three pages
				r.URL.RawQuery = q.Encode()
			}
			return false
		})
		small := func(o *Options) { o.SortMaxBytes = 1 }
		inFile := func(o *Options) { small(o); o.SortDir = t.TempDir() }
		for _, options := range []func(*Options){small, inFile} {
			r := run(a, event.Position{}, options)
			synctest.Wait()
			got := r.states()
			slices.SortFunc(got, byVersion)
			wantStates(t, "emitted, in any order", got, want...)
			wantPosition(t, r.position(), "uid-a/0@1300")
			_ = r.stop()
			log := r.log.String()
			if c := strings.Count(log, "level=WARN"); c != 1 || !strings.Contains(log, "space for sorting") {
				t.Errorf("%d warnings, want one that mentions the space for sorting", c)
			}
			for i, rec := range r.journal.all() {
				if i%400 != 0 {
					continue
				}
				again := run(a, rec.Position, options)
				synctest.Wait()
				got := append(states(r.journal.all()[:i+1]), again.states()...)
				slices.SortFunc(got, byVersion)
				wantStates(t, fmt.Sprintf("resumed from %s", rec.Position), slices.Compact(got), want...)
				_ = again.stop()
			}
		}
	})
}

func byVersion(a, b string) int {
	_, a, _ = strings.Cut(a, "@")
	_, b, _ = strings.Cut(b, "@")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// Only states that are certainly missing are counted as missed.
func TestGapCountsMissedStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		second := func() { time.Sleep(time.Second) }
		a.write("old")
		second()
		last := a.write("before")
		from := at(last)
		from.Time = time.Now().Truncate(time.Second).UTC()
		a.write("same-second") // may be the last state seen
		second()
		a.write("same-second")
		a.write("old")
		a.write("once")
		a.write("twice")
		second()
		a.write("twice")
		to := time.Now().UTC()
		a.write("gone")
		a.remove("gone")
		a.compact()

		r := run(a, from)
		synctest.Wait()
		gap := r.journal.all()[0]
		want := map[string]string{
			"hindsight/cause":           "too_old",
			"hindsight/missed_at_least": "1",
			"hindsight/from_version":    fmt.Sprint(last),
			"hindsight/to_version":      fmt.Sprint(a.Version()),
			"hindsight/from_time":       from.Time.Format(time.RFC3339),
			"hindsight/to_time":         to.Format(time.RFC3339),
		}
		for k, v := range want {
			if got := gap.Event.Annotations[k]; got != v {
				t.Errorf("%s is %q, want %q", k, got, v)
			}
		}
		if gap.Event.Namespace != "hindsight" {
			t.Errorf("gap record in namespace %q", gap.Event.Namespace)
		}
		if !r.position().Time.Equal(to) {
			t.Errorf("position at %s, want %s", r.position().Time, to)
		}
	})
}

// A page that is read twice, and a list that is restarted, count once.
func TestGapCountsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		writeMany(a, 600)
		from := at(a.Version())
		from.Time = time.Now()
		time.Sleep(time.Second)
		for range 2 {
			a.write("a-twice") // on the first page
			a.write("z-twice") // on the second
			time.Sleep(time.Second)
		}
		a.compact()
		n := 0
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isPage(r) {
				return false
			}
			switch n++; n {
			case 1:
				return half(a, w, r)
			case 3:
				fakeapi.Fail(w, r, http.StatusGone, "the continue token has expired")
				return true
			}
			return false
		})
		r := run(a, from)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "gap:too_old", "a-twice@703", "z-twice@704")
		if got := r.journal.all()[0].Event.Annotations["hindsight/missed_at_least"]; got != "2" {
			t.Errorf("missed at least %s, want 2", got)
		}
		if !strings.Contains(r.log.String(), "listed=602 emitted=2 already_seen=600") {
			t.Error("the counts are not logged")
		}
	})
}

// While the journal is blocked, a list waits, with heartbeats.
func TestListWaitsForJournal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		want := writeMany(a, 3*maxBatchRecords)
		r := run(a, event.Position{}, func(o *Options) { o.SortDir = t.TempDir() })
		r.journal.block()
		time.Sleep(time.Hour)
		if age := time.Since(r.LastHeartbeat()); age > time.Minute {
			t.Errorf("no heartbeat for %s", age)
		}
		wantPosition(t, r.Position(), "none")
		r.journal.unblock()
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Error(err)
		}
		wantStates(t, "emitted", r.states(), want...)
	})
}
