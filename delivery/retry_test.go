package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestBatchIsRetriedUntilAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in, out := newJournal(), &fakeSink{errors: slices.Repeat([]error{errors.New("no route to host")}, 20)}
		in.add(sinktest.Records(0, 3))
		metrics := prometheus.NewRegistry()
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out,
			Limits:  sink.Limits{MinBackoff: time.Second, MaxBackoff: 30 * time.Second},
			Logger:  slog.New(slog.NewTextHandler(&log, nil)),
			Metrics: delivery.NewMetrics(metrics),
		})
		time.Sleep(time.Minute)
		wantAck(t, in, 0)
		if s := d.State(); s.Err == nil || time.Since(s.Since) != time.Minute {
			t.Errorf("state is %+v, want a failure for a minute", s)
		}
		finish(t, d, wait)
		wantMessages(t, out, numbered(0, 1, 2)...)
		wantAck(t, in, 3)
		for i := 1; i < len(out.attempts); i++ {
			if delay := out.attempts[i].Sub(out.attempts[i-1]); delay < time.Second || delay > 30*time.Second {
				t.Errorf("delay before attempt %d is %v, want between 1s and 30s", i+1, delay)
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d log lines, want the first failure and the recovery:\n%s", n, log.String())
		}
		want := strings.NewReader(`
# HELP hindsight_sink_sent_total Records accepted by the sink.
# TYPE hindsight_sink_sent_total counter
hindsight_sink_sent_total{sink="test"} 3
`)
		if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_sent_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestDeliveryStopsDuringABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{errors: slices.Repeat([]error{errors.New("down")}, 1000)}
		in.add(sinktest.Records(0, 1))
		ctx, cancel := context.WithCancel(t.Context())
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{MinBackoff: time.Hour, MaxBackoff: time.Hour}})
		time.Sleep(time.Minute)
		cancel()
		before := time.Now()
		if err := wait(); err != nil {
			t.Error(err)
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("stopped %v after the context ended", waited)
		}
		wantAck(t, in, 0)
	})
}

func TestTimeoutEndsAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		in, out := newJournal(), &fakeSink{answer: hangOnce()}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Timeout: 10 * time.Second}, Metrics: delivery.NewMetrics(metrics)})
		time.Sleep(5 * time.Second)
		if s := d.State(); s.Err != nil || time.Since(s.Since) != 5*time.Second {
			t.Errorf("state is %+v, want an attempt that began 5s ago", s)
		}
		finish(t, d, wait)
		want := strings.NewReader(`
# HELP hindsight_sink_resent_total Records sent again after a failed attempt.
# TYPE hindsight_sink_resent_total counter
hindsight_sink_resent_total{sink="test"} 1
# HELP hindsight_sink_retries_total Failed attempts to send a batch, by reason.
# TYPE hindsight_sink_retries_total counter
hindsight_sink_retries_total{reason="blocked",sink="test"} 0
hindsight_sink_retries_total{reason="closed",sink="test"} 0
hindsight_sink_retries_total{reason="no_space",sink="test"} 0
hindsight_sink_retries_total{reason="not_found",sink="test"} 0
hindsight_sink_retries_total{reason="other",sink="test"} 0
hindsight_sink_retries_total{reason="rate_limited",sink="test"} 0
hindsight_sink_retries_total{reason="rejected",sink="test"} 0
hindsight_sink_retries_total{reason="stream_limit",sink="test"} 0
hindsight_sink_retries_total{reason="timeout",sink="test"} 1
hindsight_sink_retries_total{reason="unauthorized",sink="test"} 0
hindsight_sink_retries_total{reason="unavailable",sink="test"} 0
`)
		if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_retries_total", "hindsight_sink_resent_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestConcurrencyDropsInAnOutageAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		out := &fakeSink{takes: time.Millisecond}
		out.setAnswer(func(context.Context, *sink.Batch) error { return errors.New("503") })
		in.add(inNamespaces(100, sinktest.Records(0, 100)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 16, MinBackoff: time.Second, MaxBackoff: time.Second}})
		time.Sleep(time.Minute)
		out.setAnswer(nil)
		out.mu.Lock()
		out.maxFlight = 0
		failed := len(out.attempts)
		out.mu.Unlock()
		// 16, 8, 4, 2 and then one a second.
		if failed > 16+8+4+2+60 {
			t.Errorf("%d attempts in an outage of a minute", failed)
		}
		finish(t, d, wait)
		if got := len(out.messages()); got != 100 {
			t.Errorf("%d records accepted, want 100", got)
		}
		if out.maxFlight < 10 {
			t.Errorf("at most %d batches in flight after the recovery, want more", out.maxFlight)
		}
	})
}

// A sink can distinguish a bad record from a bad stream only by later records of the
// stream.
func TestFailingBatchGrowsByNewRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		out := &fakeSink{answer: func(_ context.Context, b *sink.Batch) error {
			if b.Len() < 3 {
				return &sink.Error{StreamOnly: true, Err: errors.New("400")}
			}
			return nil
		}}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		time.Sleep(time.Minute)
		in.add(sinktest.Records(1, 1))
		time.Sleep(time.Minute)
		wantAck(t, in, 0)
		in.add(sinktest.Records(2, 1))
		finish(t, d, wait)
		wantMessages(t, out, numbered(0, 1, 2)...)
		wantAck(t, in, 3)
	})
}

func TestFailingBatchGrowsByWaitingRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newJournal()
		out := &fakeSink{answer: func(_ context.Context, b *sink.Batch) error {
			if b.Len() < 2 {
				return &sink.Error{StreamOnly: true, Err: errors.New("400")}
			}
			return nil
		}}
		in.add(sinktest.Records(0, 5))
		ctx, cancel := context.WithCancel(t.Context())
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchBytes: 1}}) // one record in a batch
		time.Sleep(time.Hour)
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, out, numbered(0, 1, 2, 3)...) // the last has no other to join
		if !slices.Equal(out.batches, []int{2, 2}) {
			t.Errorf("batches of %v records, want 2 and 2", out.batches)
		}
		wantAck(t, in, 4)
	})
}

// The destination refuses most of many streams; the others do not wait for them.
func TestManyFaultyStreamsDoNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, records = 1000, 10_000
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		out.setAnswer(func(_ context.Context, b *sink.Batch) error {
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
			t.Errorf("%d of %d good records accepted after a minute", n, records/5*2)
		}
	})
}

// Occasional failures are one outage in the log.
func TestOccasionalFailuresAreOneOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		n := 0
		out.setAnswer(func(context.Context, *sink.Batch) error {
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
		finish(t, d, wait)
		if got := len(out.messages()); got != 6000 {
			t.Errorf("%d of 6000 records accepted", got)
		}
		// The start and the end of an outage of the destination, and of some streams.
		if lines := strings.Count(log.String(), "\n"); lines > 8 {
			t.Errorf("%d log lines in a minute:\n%s", lines, log.String())
		}
	})
}
