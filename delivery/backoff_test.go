package delivery_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{errors: []error{&sink.Error{RetryAfter: 7 * time.Minute, Err: errors.New("busy")}}}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		finish(t, d, wait)
		if got := out.attempts[1].Sub(out.attempts[0]); got < 7*time.Minute || got > 9*time.Minute {
			t.Errorf("retried after %v, want 7m and some jitter", got)
		}
	})
}

// Senders to which a failing destination answers "Retry-After: 1" do not retry every
// second, nor at the same time.
func TestBackoffGrowsBeyondRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, minutes = 10, 30
		var mu sync.Mutex
		var requests []time.Time
		unavailable := func(context.Context, *sink.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			requests = append(requests, time.Now())
			return &sink.Error{Reason: sink.ReasonUnavailable, RetryAfter: time.Second, Err: errors.New("503")}
		}
		for range senders {
			in, out := newJournal(), &fakeSink{takes: time.Millisecond, answer: unavailable}
			in.add(inNamespaces(20, sinktest.Records(0, 100)))
			start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 16, BatchBytes: 100}})
		}
		time.Sleep(minutes * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		// First 16 at the same time, 8, 4 and 2; then one after up to 30 s.
		if limit := senders * (30 + minutes*60/10); len(requests) > limit {
			t.Errorf("%d requests of %d senders in %d minutes, want at most %d", len(requests), senders, minutes, limit)
		}
		at := map[time.Time]int{}
		for _, r := range requests {
			if at[r]++; at[r] > 2 && r.After(requests[0].Add(time.Minute)) {
				t.Fatalf("%d requests at the same time", at[r])
			}
		}
	})
}

func TestRetryAfterOfOneStreamDelaysOthersForLessThanAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		var attempts []time.Time
		out.setAnswer(func(_ context.Context, b *sink.Batch) error {
			if b.Stream == "ns-0" {
				attempts = append(attempts, time.Now())
				if len(attempts) == 1 {
					return &sink.Error{Reason: sink.ReasonRateLimited, RetryAfter: 30 * time.Minute, Err: errors.New("429")}
				}
			}
			return nil
		})
		in.add(inNamespaces(2, sinktest.Records(0, 10)))
		start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		time.Sleep(time.Minute)
		if n := len(out.messages()); n != 5 {
			t.Errorf("%d records of the other stream accepted within a minute, want 5", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(attempts) != 2 || attempts[1].Sub(attempts[0]) < 30*time.Minute {
			t.Errorf("attempts at %v, want the second after half an hour", attempts)
		}
	})
}

// A success does not end a backoff if its attempt began before the failure.
func TestEarlierSuccessDoesNotEndABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		began := time.Now()
		var mu sync.Mutex
		var attempts []time.Duration
		out.setAnswer(func(_ context.Context, b *sink.Batch) error {
			mu.Lock()
			attempts = append(attempts, time.Since(began).Round(time.Millisecond))
			n := len(attempts)
			mu.Unlock()
			switch {
			case n > 2:
				return nil
			case b.Stream == "ns-1":
				time.Sleep(time.Second) // succeeds after the other has failed
				return nil
			default:
				time.Sleep(500 * time.Millisecond)
				return &sink.Error{Reason: sink.ReasonUnavailable, RetryAfter: 20 * time.Second, Err: errors.New("503")}
			}
		})
		in.add(inNamespaces(2, sinktest.Records(0, 2)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 2}})
		time.Sleep(5 * time.Second)
		in.add(inNamespaces(2, sinktest.Records(2, 2)))
		finish(t, d, wait)
		if len(attempts) < 3 || attempts[2] < 20*time.Second {
			t.Errorf("attempts after %v, want the third after 20s", attempts)
		}
	})
}
