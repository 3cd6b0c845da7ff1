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
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// Records that arrive during a call of Handle are the next batch.
func TestBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		r := run(a, at(100))
		synctest.Wait()
		r.journal.block()
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprintf("e@%d", a.write("e")))
			if i == 0 {
				synctest.Wait() // it is a batch by itself
			}
		}
		synctest.Wait()
		r.journal.unblock()
		synctest.Wait()
		wantStates(t, "emitted", r.states(), want...)
		if n := r.journal.batches(); n != 2 {
			t.Errorf("%d batches, want 2", n)
		}
	})
}

// advance does nothing if a record was added meanwhile.
func TestAdvance(t *testing.T) {
	t.Parallel()
	b := newBatcher("", at(100), nil, nil)
	before, _ := b.positionAndTime()
	if !b.tryAdd(event.Record{Event: &corev1.Event{}, Position: event.Position{Version: 103}}, nil, 1) {
		t.Fatal("batch is full")
	}
	b.advance(before, at(102), "")
	now, _ := b.positionAndTime()
	wantPosition(t, now, "uid-a/0@103")
	b.advance(now, at(104), "")
	now, _ = b.positionAndTime()
	wantPosition(t, now, "uid-a/0@104")
	if len(b.pending.records) != 2 {
		t.Errorf("%d records, want 2", len(b.pending.records))
	}
}

// Handle may change the slice: intake removes dropped records in place.
func TestHandleMayChangeRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		states := 0
		b := newBatcher("", at(100), func(_ context.Context, records []event.Record) error {
			clear(records)
			return nil
		}, func(n int) { states += n })
		b.tryAdd(event.Record{Event: &corev1.Event{}, Position: event.Position{Version: 103}}, nil, 1)
		b.tryAdd(event.Record{Event: &corev1.Event{}, Position: event.Position{Version: 104}}, nil, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wantPosition(t, b.stored, "uid-a/0@104")
		if states != 2 {
			t.Errorf("%d states counted, want 2", states)
		}
	})
}

// While the journal is blocked the watch is not read; after a minute it is closed. Nothing is
// lost.
func TestBlockedJournal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		blocked time.Duration
		closed  bool
	}{
		"shortly":            {closeWhenBlockedFor - time.Second, false},
		"for an hour":        {time.Hour, true},
		"and never released": {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				var open atomic.Int32
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !fakeapi.IsWatch(r) {
						return false
					}
					open.Add(1)
					a.Serve(w, r)
					open.Add(-1)
					return true
				})
				r := run(a, at(100))
				synctest.Wait()
				r.journal.block()
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
				if got := open.Load() == 0; got != test.closed {
					t.Errorf("watch closed: %t, want %t", got, test.closed)
				}
				if age := time.Since(r.LastHeartbeat()); age > time.Minute {
					t.Errorf("no heartbeat for %s", age)
				}
				if got := strings.Contains(r.log.String(), "journal accepts no records"); got != test.closed {
					t.Errorf("logged: %t, want %t", got, test.closed)
				}
				r.journal.unblock()
				synctest.Wait()
				wantStates(t, "emitted", r.states(), want...)
				wantGrowing(t, r.journal.all())
			})
		})
	}
}

// Single records are batched, except for the first one. A full batch does not wait.
func TestBatchInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches []int
		var at []time.Duration
		began := time.Now()
		b := newBatcher("", event.Position{}, func(_ context.Context, records []event.Record) error {
			batches, at = append(batches, len(records)), append(at, time.Since(began))
			return nil
		}, func(int) {})
		b.interval = 10 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.run(ctx) }()
		add := func(n int) {
			for range n {
				if !b.tryAdd(event.Record{Event: &corev1.Event{}}, nil, 1) {
					t.Error("batch is full")
				}
			}
		}
		for range 9 {
			add(1)
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Second)
		add(1)
		synctest.Wait()
		add(maxBatchRecords)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ms := time.Millisecond
		if want := []int{1, 3, 3, 2, 1, maxBatchRecords}; !slices.Equal(batches, want) {
			t.Errorf("batches of %v records, want %v", batches, want)
		}
		if want := []time.Duration{0, 10 * ms, 20 * ms, 30 * ms, 1027 * ms, 1027 * ms}; !slices.Equal(at, want) {
			t.Errorf("after %v, want %v", at, want)
		}
	})
}

// Records that were received together are one batch, also if the last of them is no state.
func TestHeldRecordsAreOneBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches []int
		b := newBatcher("", event.Position{}, func(_ context.Context, records []event.Record) error {
			batches = append(batches, len(records))
			return nil
		}, func(int) {})
		go func() { _ = b.run(t.Context()) }()
		state, position := event.Record{Event: &corev1.Event{}}, event.Record{Position: event.Position{Version: 3}}
		for i, r := range []event.Record{state, state, position} {
			b.hold(i < 2)
			if !b.tryAdd(r, nil, 1) {
				t.Fatal("batch is full")
			}
			synctest.Wait()
		}
		if len(batches) != 1 || batches[0] < 2 {
			t.Errorf("batches of %v records, want one with both states", batches)
		}
		b.hold(true)
		for range maxBatchRecords {
			b.tryAdd(state, nil, 1)
		}
		synctest.Wait()
		if got := batches[len(batches)-1]; got != maxBatchRecords {
			t.Errorf("a full batch was held; the last one had %d records", got)
		}
	})
}

// Buffers are reused after Handle has returned, and freed when there are no records.
func TestBuffersAreReused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *batcher
		var buffer *event.DecodeBuffer
		b = newBatcher("", event.Position{}, func(context.Context, []event.Record) error {
			if b.newBuffer() == buffer {
				t.Error("buffer is reused during Handle")
			}
			return nil
		}, func(int) {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.run(ctx) }()
		buffer = b.newBuffer()
		b.tryAdd(event.Record{Event: &corev1.Event{}}, buffer, 1)
		synctest.Wait()
		if again := b.newBuffer(); again != buffer {
			t.Error("buffer is not reused")
		}
		b.recycle(buffer)
		time.Sleep(2 * positionFlushInterval)
		if b.newBuffer() == buffer {
			t.Error("buffer is not freed")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
