package watch

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

// What comes while records are being taken over makes one group.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := run(a, at(100))
		synctest.Wait()
		r.journal.fill()
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprintf("e@%d", a.write("e")))
			if i == 0 {
				synctest.Wait() // it is on its way alone
			}
		}
		synctest.Wait()
		r.journal.free()
		synctest.Wait()
		wantStates(t, "taken", r.states(), want...)
		if n := r.journal.groups(); n != 2 {
			t.Errorf("%d groups, want 2", n)
		}
	})
}

// What a list in a quiet minute says of the position counts only if nothing was
// put meanwhile.
func TestAdvance(t *testing.T) {
	h := newBatcher("", at(100), nil, nil)
	before, _ := h.positionAndTime()
	if !h.tryAdd(event.Record{Event: &corev1.Event{}, Position: event.Position{Version: 103}}, nil, 1) {
		t.Fatal("no room")
	}
	h.advance(before, at(102), "")
	now, _ := h.positionAndTime()
	wantPosition(t, now, "uid-a/0@103")
	h.advance(now, at(104), "")
	now, _ = h.positionAndTime()
	wantPosition(t, now, "uid-a/0@104")
	if len(h.pending.records) != 2 {
		t.Errorf("%d records, want 2", len(h.pending.records))
	}
}

// Out owns what it is given: an intake leaves out what is dropped, in place.
func TestOutMayChangeTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := 0
		h := newBatcher("", at(100), func(_ context.Context, records []event.Record) error {
			clear(records)
			return nil
		}, func(n int) { states += n })
		h.tryAdd(event.Record{Event: &corev1.Event{}, Position: event.Position{Version: 103}}, nil, 1)
		h.tryAdd(event.Record{Event: &corev1.Event{}, Position: event.Position{Version: 104}}, nil, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wantPosition(t, h.stored, "uid-a/0@104")
		if states != 2 {
			t.Errorf("%d states were counted, want 2", states)
		}
	})
}

// While records are not taken the watch is not read; after a minute it is
// dropped. Nothing is lost.
func TestBlocked(t *testing.T) {
	for name, test := range map[string]struct {
		blocked time.Duration
		dropped bool
	}{
		"shortly":            {closeWhenBlockedFor - time.Second, false},
		"for an hour":        {time.Hour, true},
		"and never released": {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				var open atomic.Int32
				a.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("watch") == "" {
						return false
					}
					open.Add(1)
					a.serveWatch(w, r)
					open.Add(-1)
					return true
				}
				r := run(a, at(100))
				synctest.Wait()
				r.journal.fill()
				var want []string
				for range 5 * maxBatchRecords {
					want = append(want, fmt.Sprintf("e@%d", a.write("e")))
				}
				synctest.Wait()
				if n := open.Load(); n != 1 {
					t.Errorf("%d watches open", n)
				}
				if test.blocked == 0 {
					time.Sleep(time.Hour)
					if err := r.stop(); err != nil {
						t.Error(err)
					}
					wantPosition(t, r.Position(), "uid-a/0@100")
					return
				}
				time.Sleep(test.blocked)
				if got := open.Load() == 0; got != test.dropped {
					t.Errorf("watch dropped: %t, want %t", got, test.dropped)
				}
				if age := time.Since(r.LastHeartbeat()); age > time.Minute {
					t.Errorf("the loop has not turned for %s", age)
				}
				if got := strings.Contains(r.log.String(), "journal accepts no records"); got != test.dropped {
					t.Errorf("said: %t, want %t", got, test.dropped)
				}
				r.journal.free()
				synctest.Wait()
				wantStates(t, "taken", r.states(), want...)
				wantGrowing(t, r.journal.all())
			})
		})
	}
}

// Records that come one by one are handed over together, the first of them at once,
// and a full group without waiting.
func TestGroupsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var groups []int
		var at []time.Duration
		began := time.Now()
		h := newBatcher("", event.Position{}, func(_ context.Context, records []event.Record) error {
			groups, at = append(groups, len(records)), append(at, time.Since(began))
			return nil
		}, func(int) {})
		h.interval = 10 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.run(ctx) }()
		put := func(n int) {
			for range n {
				if !h.tryAdd(event.Record{Event: &corev1.Event{}}, nil, 1) {
					t.Error("no room")
				}
			}
		}
		for range 9 {
			put(1)
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Second)
		put(1)
		synctest.Wait()
		put(maxBatchRecords)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ms := time.Millisecond
		if want := []int{1, 3, 3, 2, 1, maxBatchRecords}; !slices.Equal(groups, want) {
			t.Errorf("groups of %v, want %v", groups, want)
		}
		if want := []time.Duration{0, 10 * ms, 20 * ms, 30 * ms, 1027 * ms, 1027 * ms}; !slices.Equal(at, want) {
			t.Errorf("after %v, want %v", at, want)
		}
	})
}

// Memory is used again once Out has returned, and let go of in quiet times.
func TestRoomsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *batcher
		var room *event.DecodeBuffer
		h = newBatcher("", event.Position{}, func(context.Context, []event.Record) error {
			if h.newBuffer() == room {
				t.Error("memory is used for another while Out has it")
			}
			return nil
		}, func(int) {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.run(ctx) }()
		room = h.newBuffer()
		h.tryAdd(event.Record{Event: &corev1.Event{}}, room, 1)
		synctest.Wait()
		if again := h.newBuffer(); again != room {
			t.Error("memory is not used again")
		}
		h.recycle(room)
		time.Sleep(2 * positionFlushInterval)
		if h.newBuffer() == room {
			t.Error("memory is kept though nothing comes")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
