package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// Streams to which a failing destination answered Retry-After: 1 do not all retry
// every second, nor at the same instant.
func TestRetryAfterIsNoMetronome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, minutes = 10, 30
		var mu sync.Mutex
		var requests []time.Time
		refuse := func(_ context.Context, b *sink.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			requests = append(requests, time.Now())
			return &sink.Error{Reason: sink.ReasonUnavailable, RetryAfter: time.Second, Err: errors.New("503")}
		}
		for range senders {
			in, out := newSource(), &perStream{}
			out.set(refuse)
			in.add(inNamespaces(20, sinktest.Records(0, 100)))
			start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 16, BatchBytes: 100}})
		}
		time.Sleep(minutes * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		// At the beginning 16 at once, 8, 4 and 2; then one at a time, after up to 30 s.
		if most := senders * (30 + minutes*60/10); len(requests) > most {
			t.Errorf("%d requests of %d senders in %d minutes, want %d at most", len(requests), senders, minutes, most)
		}
		late := map[time.Time]int{}
		for _, at := range requests {
			if late[at]++; late[at] > 2 && at.After(requests[0].Add(time.Minute)) {
				t.Fatalf("%d requests at the same instant", late[at])
			}
		}
	})
}

// An answer may concern one stream alone.
func TestRetryAfterOfOneStreamHoldsUpOthersForLessThanAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &perStream{}
		var tried []time.Time
		out.set(func(_ context.Context, b *sink.Batch) error {
			if b.Stream == "ns-0" {
				tried = append(tried, time.Now())
				if len(tried) == 1 {
					return &sink.Error{Reason: sink.ReasonRateLimited, RetryAfter: 30 * time.Minute, Err: errors.New("429")}
				}
			}
			return nil
		})
		in.add(inNamespaces(2, sinktest.Records(0, 10)))
		start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		time.Sleep(time.Minute)
		if n := len(out.messages()); n != 5 {
			t.Errorf("%d records of the other stream arrived within a minute, want 5", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(tried) != 2 || tried[1].Sub(tried[0]) < 30*time.Minute {
			t.Errorf("tried at %v, want again after half an hour", tried)
		}
	})
}

// A success that began before a failure proves nothing about the time after it.
func TestAnEarlierSuccessDoesNotCancelAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &perStream{}
		began := time.Now()
		var mu sync.Mutex
		var after []time.Duration
		out.set(func(_ context.Context, b *sink.Batch) error {
			mu.Lock()
			after = append(after, time.Since(began).Round(time.Millisecond))
			n := len(after)
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
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if len(after) < 3 || after[2] < 20*time.Second {
			t.Errorf("attempts after %v, want a pause of 20 s before the third", after)
		}
	})
}

// A destination that fails now and then is one outage in the log.
func TestOutagesDoNotFlapInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in, out := newSource(), &perStream{}
		n := 0
		out.set(func(_ context.Context, b *sink.Batch) error {
			out.mu.Lock()
			defer out.mu.Unlock()
			if n++; n%2 == 0 {
				return errors.New("502")
			}
			return nil
		})
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 4},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		for i := range 600 {
			in.add(inNamespaces(5, sinktest.Records(i*10, 10)))
			time.Sleep(100 * time.Millisecond)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := len(out.messages()); got != 6000 {
			t.Errorf("%d of 6000 records arrived", got)
		}
		// Of the destination and of some streams, begun and ended.
		if lines := strings.Count(log.String(), "\n"); lines > 8 {
			t.Errorf("%d lines of log in a minute:\n%s", lines, log.String())
		}
	})
}

// A gap without a record in the destination would be a silent loss.
func TestARefusedGapRecordMakesTheSinkUnready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gap := event.NewGap(event.Gap{Namespace: "ns-0", Cause: event.CauseTooOld})
		for name, answer := range map[string]func(b *sink.Batch) error{
			"for good": func(b *sink.Batch) error {
				for i := range b.Len() {
					if string(b.Record(i)) == gap.Event.Message {
						return &sink.Error{Rejected: []sink.Rejection{{Index: i, Reason: "too old"}}, Err: errors.New("400")}
					}
				}
				return nil
			},
			"with its stream": func(b *sink.Batch) error {
				if strings.Contains(string(b.Data), gap.Event.Message) {
					return &sink.Error{Reason: sink.ReasonUnavailable, StreamOnly: true, Err: errors.New("too old")}
				}
				return nil
			},
		} {
			in, out := newSource(), &perStream{}
			out.set(func(_ context.Context, b *sink.Batch) error { return answer(b) })
			d, _ := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: parked.NewMemory(0)})
			in.add(append(inNamespaces(2, sinktest.Records(0, 2)), gap))
			for i := range 20 {
				time.Sleep(10 * time.Second)
				records := sinktest.Records(10+i, 1)
				records[0].Event.Namespace = "other"
				in.add(records)
			}
			if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "too old") {
				t.Errorf("%s: ready says %v", name, err)
			}
		}
	})
}

// counting makes three requests a Send.
type counting struct {
	scripted
	hang bool
}

func (c *counting) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.attempts)
}

func (c *counting) Send(ctx context.Context, _ *sink.Batch) error {
	for range 3 {
		request, cancel, err := sink.BeginRequest(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		c.mu.Lock()
		c.attempts = append(c.attempts, time.Now())
		c.mu.Unlock()
		if c.hang {
			<-request.Done()
		} else {
			time.Sleep(time.Second)
		}
		cancel()
		if err := request.Err(); c.hang && err != nil {
			return err
		}
	}
	return nil
}

func TestEachRequestAsksForItsPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		in, out := newSource(), &counting{}
		in.add(sinktest.Records(0, 1))
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{MultiRequest: true},
			Fence: func() (time.Time, bool) {
				return time.Now().Add(time.Minute), time.Since(began) < 1500*time.Millisecond
			},
		})
		time.Sleep(time.Hour)
		if n := out.requests(); n != 2 || in.lastAck() != 0 {
			t.Errorf("%d requests were made, %d acknowledged; want 2 and 0: a third one was not permitted", n, in.lastAck())
		}

		in, out = newSource(), &counting{hang: true}
		in.add(sinktest.Records(0, 1))
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Limits: sink.Limits{MultiRequest: true, MinBackoff: time.Second, MaxBackoff: time.Second},
			Fence: func() (time.Time, bool) { return time.Now().Add(4 * time.Second), true },
		})
		time.Sleep(time.Minute)
		if n := out.requests(); n < 10 {
			t.Errorf("%d requests that hang in a minute: each must end with the permit that it began with, after 4 s", n)
		}
	})
}

// Most of many streams are refused, and the others do not wait for them.
func TestManyRefusedStreamsDoNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, records = 1000, 10_000
		in, out := newSource(), &perStream{}
		out.set(func(_ context.Context, b *sink.Batch) error {
			var n int
			fmt.Sscanf(b.Stream, "ns-%d", &n)
			if n%5 < 3 {
				return &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("403")}
			}
			return nil
		})
		start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: parked.NewMemory(0)})
		in.add(inNamespaces(streams, sinktest.Records(0, records)))
		time.Sleep(time.Minute)
		if n := len(out.messages()); n != records/5*2 {
			t.Errorf("after a minute %d of %d good records were accepted", n, records/5*2)
		}
	})
}
