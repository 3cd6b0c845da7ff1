package watch

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
	"github.com/hindsight-events/hindsight/test/nightly"
)

// mute keeps every watch open and silent until its timeout.
func mute(w http.ResponseWriter, r *http.Request) bool {
	if !fakeapi.IsWatch(r) {
		return false
	}
	flush(w)
	holdOpen(r, watchLength(r))
	return true
}

func watchLength(r *http.Request) time.Duration {
	length, err := time.ParseDuration(r.URL.Query().Get("timeoutSeconds") + "s")
	if err != nil {
		panic(err)
	}
	return length
}

// held buffers a response, as a proxy does.
type held struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (h *held) Write(p []byte) (int, error) { return h.body.Write(p) }
func (h *held) WriteHeader(int)             {}
func (h *held) Flush()                      {}

// buffering sends the body of a watch when the watch has ended, and its headers at once or with the
// body.
func buffering(a *api, headersAtOnce bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !fakeapi.IsWatch(r) {
			return false
		}
		if headersAtOnce {
			flush(w)
		}
		h := &held{ResponseWriter: w}
		a.Serve(h, r)
		if r.Context().Err() == nil {
			_, _ = w.Write(h.body.Bytes())
		}
		return true
	}
}

// gapRecords returns the emitted gap records.
func gapRecords(r *running) (gaps []event.Record) {
	for _, rec := range r.journal.all() {
		if rec.Gap {
			gaps = append(gaps, rec)
		}
	}
	return gaps
}

func wantStalls(t *testing.T, r *running, least float64) {
	t.Helper()
	if n := testutil.ToFloat64(r.metrics.stalls); n < least || least == 0 && n != 0 {
		t.Errorf("%v stalls counted, want at least %v", n, least)
	}
}

// Watches are open and silent for hours while an Event is written every minute: lists deliver the
// latest states, there is one gap, and the source is not ready.
func TestSilentWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Intercept(mute)
		r := run(a, at(101))
		synctest.Wait()
		a.write("b")
		time.Sleep(idleAfter + deliveryGrace)
		if err := r.Ready(); err != nil {
			t.Errorf("unready while a stall is only suspected: %v", err)
		}
		time.Sleep(suspicionTimeout - deliveryGrace)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "gap:stalled", "b@102")
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "watches deliver nothing while lists show newer events") {
			t.Errorf("ready: %v; want the stall", err)
		}
		wantStalls(t, r, 1)

		for i := range 2 * 60 {
			name := fmt.Sprint("c", i)
			a.write(name)
			if i%5 == 0 { // the server can no longer replay
				a.compact()
			}
			time.Sleep(time.Minute + maxShortWatch)
			states := r.states()
			if last := states[len(states)-1]; !strings.HasPrefix(last, name+"@") {
				t.Fatalf("the last state after a minute and a half is %s, want %s", last, name)
			}
		}
		if n := len(gapRecords(r)); n != 1 {
			t.Errorf("%d gap records, want one for the whole stall", n)
		}
		if n := a.CountRequests("limit=500"); n > 2*90+20 {
			t.Errorf("%d lists in three hours", n)
		}
		wantStalls(t, r, 100)
		if n := testutil.ToFloat64(r.metrics.gaps[event.CauseStalled]); n != 1 {
			t.Errorf("%v gaps counted, want 1", n)
		}

		// Watches work again.
		before, end := len(r.states()), a.Version()
		a.Intercept(nil)
		time.Sleep(2 * maxShortWatch)
		a.write("d")
		a.write("d")
		time.Sleep(maxShortWatch)
		synctest.Wait()
		states := r.states()
		wantStates(t, "emitted after the stall", states[before:], "gap:stalled", fmt.Sprintf("d@%d", end+1), fmt.Sprintf("d@%d", end+2))
		wantGrowing(t, r.journal.all())
		if err := r.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
		gaps := gapRecords(r)
		if from, to := gaps[1].Event.Annotations["hindsight/from_version"], gaps[1].Event.Annotations["hindsight/to_version"]; from != "101" || to != fmt.Sprint(end) {
			t.Errorf("the gap is from %s to %s, want 101 to %d", from, to, end)
		}
		if to := gaps[0].Event.Annotations["hindsight/to_version"]; to != "" {
			t.Errorf("the open gap ends at %s, want no end", to)
		}
		if log := r.log.String(); strings.Count(log, "level=WARN") != 4 || !strings.Contains(log, "watches work again") {
			t.Errorf("want warnings of the suspicion, the stall, the gap and its end")
		}
		lists := a.CountRequests("limit=500")
		time.Sleep(time.Hour)
		if n := a.CountRequests("limit=500") - lists; n > 40 {
			t.Errorf("%d lists in an hour with working watches", n)
		}
	})
}

// One watch is silent. The next one replays the states.
func TestOneSilentWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		watches := 0
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if fakeapi.IsWatch(r) {
				watches++
			}
			return watches == 1 && mute(w, r)
		})
		r := run(a, at(101))
		synctest.Wait()
		var want []string
		for range 100 {
			want = append(want, fmt.Sprintf("b@%d", a.write("b")))
			time.Sleep(3 * time.Second)
		}
		synctest.Wait()
		wantStates(t, "emitted", r.states(), want...)
		wantStalls(t, r, 0)
		if err := r.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
		if r.shortWatches {
			t.Error("watches are still short")
		}
	})
}

// Watches that deliver records to a full journal are not silent.
func TestFullJournalIsNoStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, at(101))
		time.Sleep(time.Minute)
		r.journal.block()
		var want []string
		write := func(n int) {
			for range n {
				want = append(want, fmt.Sprintf("b@%d", a.write("b")))
			}
			synctest.Wait()
		}
		write(1)               // waits in Handle
		write(maxBatchRecords) // fills the next batch
		time.Sleep(idleAfter - time.Second)
		write(1)
		time.Sleep(10 * time.Minute)
		wantStalls(t, r, 0)
		r.journal.unblock()
		time.Sleep(5 * time.Minute)
		wantStates(t, "emitted", r.states(), want...)
		if gaps := gapRecords(r); len(gaps) > 0 {
			t.Errorf("%d gaps", len(gaps))
		}
	})
}

// A proxy that delays the body of a watch until its end loses nothing.
func TestBufferingProxy(t *testing.T) {
	t.Parallel()
	for name, headersAtOnce := range map[string]bool{"the body": true, "headers and body": false} {
		for _, apart := range []time.Duration{time.Second, 45 * time.Second, 4 * time.Minute} {
			t.Run(fmt.Sprintf("%s, an Event every %s", name, apart), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					a := newAPI(t)
					a.write("a")
					a.Intercept(buffering(a, headersAtOnce))
					r := run(a, at(101))
					synctest.Wait()
					var want []string
					for i := range nightly.Size(120, 360) {
						want = append(want, fmt.Sprintf("b%d@%d", i%7, a.write(fmt.Sprint("b", i%7))))
						time.Sleep(apart)
						if age := time.Duration(i%40) * apart; age > 5*time.Minute && i%40 == 39 {
							a.Compact(a.Version() - uint64(5*time.Minute/apart) - 1)
						}
					}
					time.Sleep(maxWatch + watchGrace)
					synctest.Wait()
					wantStates(t, "emitted", r.states(), want...)
					wantStalls(t, r, 0)
					if err := r.Ready(); err != nil {
						t.Errorf("unready: %v", err)
					}
				})
			})
		}
	}
}

// A state expires before any watch or list has delivered it. The position has advanced past it, but
// the gap of a later stall covers it.
func TestStatesThatExpireUndelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Intercept(mute)
		r := run(a, at(101))
		time.Sleep(time.Minute)
		a.write("b")
		a.remove("b")
		for range 20 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if r.position().Version == 103 {
				break
			}
		}
		wantPosition(t, r.position(), "uid-a/0@103")
		a.write("c")
		for !strings.Contains(r.log.String(), "checking with short watches") {
			time.Sleep(time.Second)
		}
		a.remove("c") // it was listed, and is deleted before the next list
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "gap:stalled")
		gaps := gapRecords(r)
		if len(gaps) != 1 || gaps[0].Event.Annotations["hindsight/from_version"] != "101" {
			t.Errorf("want a gap from version 101: %+v", gaps)
		}
	})
}

// The gap of a stall begins at the last version that a watch has proven: one that it delivered, or
// the position at the clean end of a watch that delivered something.
func TestStallGapBeginsAtProvenPosition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, at(101))
		synctest.Wait()
		var last uint64
		for range 20 {
			last = a.write("a")
			a.Advance(10)
			time.Sleep(maxWatch)
		}
		a.Intercept(mute)
		time.Sleep(maxWatch)
		a.write("b")
		time.Sleep(2*idleAfter + suspicionTimeout)
		synctest.Wait()
		gaps := gapRecords(r)
		if len(gaps) != 1 {
			t.Fatalf("%d gaps, want 1", len(gaps))
		}
		if from := gaps[0].Event.Annotations["hindsight/from_version"]; from != fmt.Sprint(last) && from != fmt.Sprint(last+10) {
			t.Errorf("the gap begins at %s; %d was delivered", from, last)
		}
	})
}

// Lists work, and watches fail in one of several ways.
func TestFailingWatches(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(a *api, w http.ResponseWriter, r *http.Request){
		"bad gateway": func(_ *api, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "upstream connect error", http.StatusBadGateway)
		},
		"never answered": func(_ *api, _ http.ResponseWriter, r *http.Request) { holdOpen(r, time.Hour) },
		"never ended":    func(_ *api, w http.ResponseWriter, r *http.Request) { flush(w); holdOpen(r, time.Hour) },
		"closed at once": func(_ *api, w http.ResponseWriter, _ *http.Request) { flush(w) },
		"cut at once":    func(_ *api, w http.ResponseWriter, _ *http.Request) { flush(w); panic(http.ErrAbortHandler) },
		"garbage":        func(_ *api, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\x00\x00\x02no")) },
		"status 500": func(a *api, w http.ResponseWriter, r *http.Request) {
			fakeapi.Fail(w, r, http.StatusInternalServerError, "etcd event received with PrevKv=nil")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				var broken atomic.Bool
				broken.Store(true)
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !fakeapi.IsWatch(r) || !broken.Load() {
						return false
					}
					fail(a, w, r)
					return true
				})
				r := run(a, at(101))
				synctest.Wait()
				for i := range 120 {
					a.write(fmt.Sprint("b", i))
					time.Sleep(30 * time.Second)
					if i == 12 && r.Ready() == nil {
						t.Error("ready after six minutes without a watch")
					}
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				var states int
				for _, s := range r.states() {
					if !strings.HasPrefix(s, "gap:") {
						states++
					}
				}
				if states != 120 {
					t.Errorf("lists delivered %d of 120 states", states)
				}
				if n := len(gapRecords(r)); n > 2 {
					t.Errorf("%d gap records", n)
				}
				if n := a.CountRequests("limit=500"); n > 90 {
					t.Errorf("%d lists in an hour", n)
				}
				broken.Store(false)
				time.Sleep(2 * time.Minute)
				a.write("c")
				synctest.Wait()
				if states := r.states(); states[len(states)-1] != fmt.Sprintf("c@%d", a.Version()) {
					t.Errorf("the last state is %s", states[len(states)-1])
				}
				if err := r.Ready(); err != nil {
					t.Errorf("unready: %v", err)
				}
				wantGrowing(t, r.journal.all())
			})
		})
	}
}

// A stall that began in one process ends in the next one.
func TestStallAcrossARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Intercept(mute)
		var declared []event.Gap
		first := run(a, at(101), func(o *Options) { o.OnGap = func(g event.Gap) { declared = append(declared, g) } })
		synctest.Wait()
		a.write("b")
		time.Sleep(idleAfter + suspicionTimeout + maxShortWatch)
		a.write("c")
		time.Sleep(2 * time.Minute)
		if err := first.stop(); err != nil {
			t.Error(err)
		}
		wantStates(t, "the first", first.states(), "gap:stalled", "b@102", "c@103")
		a.write("d")
		second := run(a, first.position(), func(o *Options) {
			o.KnownGaps = declared
			o.OnGap = func(g event.Gap) { declared = append(declared, g) }
		})
		synctest.Wait()
		if second.Ready() == nil {
			t.Error("ready before a watch has worked")
		}
		time.Sleep(2 * time.Minute)
		a.Intercept(nil)
		time.Sleep(time.Minute)
		a.write("e")
		synctest.Wait()
		wantStates(t, "the second", second.states(), "d@104", "gap:stalled", "e@105")
		if err := second.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
		if n := len(declared); n != 2 || declared[1].From.Version != 101 || declared[1].To.Version != 104 || !declared[1].Supersedes(declared[0]) {
			t.Errorf("declared %+v, want one gap, first without an end", declared)
		}
	})
}
