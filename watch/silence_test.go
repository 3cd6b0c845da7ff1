package watch

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/event"
)

// mute keeps every watch open and silent for as long as the client asks for.
func mute(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Query().Get("watch") == "" {
		return false
	}
	flush(w)
	wait(r, watchLength(r))
	return true
}

func watchLength(r *http.Request) time.Duration {
	length, err := time.ParseDuration(r.URL.Query().Get("timeoutSeconds") + "s")
	if err != nil {
		panic(err)
	}
	return length
}

// held is the part of a response that a proxy has received and not passed on.
type held struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (h *held) Write(p []byte) (int, error) { return h.body.Write(p) }
func (h *held) WriteHeader(int)             {}
func (h *held) Flush()                      {}

// buffering passes the body of a watch on once the API server has ended it, and its
// headers at once or with the body.
func buffering(a *api, headersAtOnce bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		if headersAtOnce {
			flush(w)
		}
		h := &held{ResponseWriter: w}
		a.serveWatch(h, r)
		if r.Context().Err() == nil {
			_, _ = w.Write(h.body.Bytes())
		}
		return true
	}
}

// gapRecords returns the gap records that were delivered.
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

// Watches are open and silent for hours while an Event is written every minute: the
// latest states come by lists, there is one gap, and the source is unready.
func TestSilentWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.set(func() { a.intercept = mute })
		r := run(a, at(101))
		synctest.Wait()
		a.write("b")
		time.Sleep(idleAfter + deliveryGrace)
		if err := r.Ready(); err != nil {
			t.Errorf("unready while it is only suspected: %v", err)
		}
		time.Sleep(suspicionTimeout - deliveryGrace)
		synctest.Wait()
		wantStates(t, "taken", r.states(), "gap:stalled", "b@102")
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "watches deliver nothing while lists show newer events") {
			t.Errorf("ready: %v; want what is wrong", err)
		}
		wantStalls(t, r, 1)

		for i := range 6 * 60 {
			name := fmt.Sprint("c", i)
			a.write(name)
			if i%5 == 0 { // the server forgets what it could have replayed
				a.compact()
			}
			time.Sleep(time.Minute + maxShortWatch)
			states := r.states()
			if last := states[len(states)-1]; !strings.HasPrefix(last, name+"@") {
				t.Fatalf("the last state after a minute and a half is %s, want that of %s", last, name)
			}
		}
		if n := len(gapRecords(r)); n != 1 {
			t.Errorf("%d gap records, want one for the whole stretch", n)
		}
		if n := a.asked("limit=500"); n > 6*90+20 {
			t.Errorf("%d lists in nine hours", n)
		}
		wantStalls(t, r, 300)
		if n := testutil.ToFloat64(r.metrics.gaps[event.CauseStalled]); n != 1 {
			t.Errorf("%v gaps counted, want 1", n)
		}

		// Watches work again.
		before, end := len(r.states()), a.version
		a.set(func() { a.intercept = nil })
		time.Sleep(2 * maxShortWatch)
		a.write("d")
		a.write("d")
		time.Sleep(maxShortWatch)
		synctest.Wait()
		states := r.states()
		wantStates(t, "taken in the end", states[before:], "gap:stalled", fmt.Sprintf("d@%d", end+1), fmt.Sprintf("d@%d", end+2))
		wantGrowing(t, r.journal.all())
		if err := r.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
		gaps := gapRecords(r)
		if from, to := gaps[1].Event.Annotations["hindsight/from_version"], gaps[1].Event.Annotations["hindsight/to_version"]; from != "101" || to != fmt.Sprint(end) {
			t.Errorf("the gap is from %s to %s, want 101 to %d", from, to, end)
		}
		if to := gaps[0].Event.Annotations["hindsight/to_version"]; to != "" {
			t.Errorf("while it lasts the gap ends at %s, want no end", to)
		}
		if log := r.log.String(); strings.Count(log, "level=WARN") != 4 || !strings.Contains(log, "watches work again") {
			t.Errorf("want a warning of the suspicion, of the stall, of the gap and of its end")
		}
		lists := a.asked("limit=500")
		time.Sleep(time.Hour)
		if n := a.asked("limit=500") - lists; n > 40 {
			t.Errorf("%d lists in an hour in which watches work", n)
		}
	})
}

// One connection passes nothing. States that were written meanwhile are replayed.
func TestSilentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		watches := 0
		a.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("watch") != "" {
				watches++
			}
			return watches == 1 && mute(w, r)
		}
		r := run(a, at(101))
		synctest.Wait()
		var want []string
		for range 100 {
			want = append(want, fmt.Sprintf("b@%d", a.write("b")))
			time.Sleep(3 * time.Second)
		}
		synctest.Wait()
		wantStates(t, "taken", r.states(), want...)
		wantStalls(t, r, 0)
		if err := r.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
		if r.shortWatches {
			t.Error("watches are still short")
		}
	})
}

// Watches whose records are not taken, because the journal is full, bring something
// all the same: they are no silent ones.
func TestFullJournalIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, at(101))
		time.Sleep(time.Minute)
		r.journal.fill()
		var want []string
		write := func(n int) {
			for range n {
				want = append(want, fmt.Sprintf("b@%d", a.write("b")))
			}
			synctest.Wait()
		}
		write(1)               // waits to be taken
		write(maxBatchRecords) // fills the group behind it
		time.Sleep(idleAfter - time.Second)
		write(1)
		time.Sleep(10 * time.Minute)
		wantStalls(t, r, 0)
		r.journal.free()
		time.Sleep(5 * time.Minute)
		wantStates(t, "taken", r.states(), want...)
		if gaps := gapRecords(r); len(gaps) > 0 {
			t.Errorf("%d gaps", len(gaps))
		}
	})
}

// A proxy that holds back the body of a watch until it has ended delays, and loses
// nothing.
func TestBufferedWatches(t *testing.T) {
	for name, headersAtOnce := range map[string]bool{"the body": true, "headers and body": false} {
		for _, apart := range []time.Duration{time.Second, 45 * time.Second, 4 * time.Minute} {
			t.Run(fmt.Sprintf("%s, an Event every %s", name, apart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAPI(t)
					a.write("a")
					a.intercept = buffering(a, headersAtOnce)
					r := run(a, at(101))
					synctest.Wait()
					var want []string
					for i := range 360 {
						want = append(want, fmt.Sprintf("b%d@%d", i%7, a.write(fmt.Sprint("b", i%7))))
						time.Sleep(apart)
						if age := time.Duration(i%40) * apart; age > 5*time.Minute && i%40 == 39 {
							a.set(func() { a.compacted = a.version - uint64(5*time.Minute/apart) - 1 })
						}
					}
					time.Sleep(maxWatch + watchGrace)
					synctest.Wait()
					wantStates(t, "taken", r.states(), want...)
					wantStalls(t, r, 0)
					if err := r.Ready(); err != nil {
						t.Errorf("unready: %v", err)
					}
				})
			})
		}
	}
}

// A state expires that no watch has delivered and no list has shown. The position
// has moved past it; the gap of a later stall holds it nevertheless.
func TestStatesThatExpireUndelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.set(func() { a.intercept = mute })
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
		a.remove("c") // it was shown, and is gone before it is read
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantStates(t, "taken", r.states(), "gap:stalled")
		gaps := gapRecords(r)
		if len(gaps) != 1 || gaps[0].Event.Annotations["hindsight/from_version"] != "101" {
			t.Errorf("want a gap from version 101: %+v", gaps)
		}
	})
}

// The gap begins at the last version that a watch has proven: one that it delivered,
// or the last one of a watch that delivered something and ended in good order.
func TestGapBeginsWhereAWatchHasProvenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		r := run(a, at(101))
		synctest.Wait()
		var last uint64
		for range 20 {
			last = a.write("a")
			a.touch(10)
			time.Sleep(maxWatch)
		}
		a.set(func() { a.intercept = mute })
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

// Lists work, and watches keep failing in one of several ways.
func TestWatchesThatOnlyFail(t *testing.T) {
	for name, fail := range map[string]func(a *api, w http.ResponseWriter, r *http.Request){
		"a gateway refuses them": func(_ *api, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "upstream connect error", http.StatusBadGateway)
		},
		"they are never answered": func(_ *api, _ http.ResponseWriter, r *http.Request) { wait(r, time.Hour) },
		"they never end":          func(_ *api, w http.ResponseWriter, r *http.Request) { flush(w); wait(r, time.Hour) },
		"they are closed at once": func(_ *api, w http.ResponseWriter, _ *http.Request) { flush(w) },
		"they are cut at once":    func(_ *api, w http.ResponseWriter, _ *http.Request) { flush(w); panic(http.ErrAbortHandler) },
		"they bring garbage":      func(_ *api, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\x00\x00\x02no")) },
		"they are an error": func(a *api, w http.ResponseWriter, _ *http.Request) {
			a.fail(w, http.StatusInternalServerError, "etcd event received with PrevKv=nil")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				a.write("a")
				broken := true
				a.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("watch") == "" || !broken {
						return false
					}
					fail(a, w, r)
					return true
				}
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
					t.Errorf("%d of 120 states came by lists", states)
				}
				if n := len(gapRecords(r)); n > 2 {
					t.Errorf("%d gap records", n)
				}
				if n := a.asked("limit=500"); n > 90 {
					t.Errorf("%d lists in an hour", n)
				}
				a.set(func() { broken = false })
				time.Sleep(2 * time.Minute)
				a.write("c")
				synctest.Wait()
				if states := r.states(); states[len(states)-1] != fmt.Sprintf("c@%d", a.version) {
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

// Another process ends the stall that began in the first one.
func TestStallAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.set(func() { a.intercept = mute })
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
			t.Error("ready although watches are not known to work")
		}
		time.Sleep(2 * time.Minute)
		a.set(func() { a.intercept = nil })
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
