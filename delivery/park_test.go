package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// The tests of parking have a faulty stream among good ones.
const (
	parkStreams   = 20
	parkRecords   = 10_000
	faulty        = "ns-7"
	faultyRecords = parkRecords / parkStreams
)

// refuseFaulty refuses the faulty stream.
var refuseFaulty = refuse(faulty, &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("push: 403")})

// smallLimits put the delivery under pressure while the faulty stream is refused.
var smallLimits = sink.Limits{WindowBytes: 1000, BatchBytes: 500, Concurrency: 16, Timeout: 10 * time.Second}

// addAll adds records of all streams.
func addAll(in *fakeJournal) {
	for i := 0; i < parkRecords; i += 100 {
		in.add(inNamespaces(parkStreams, sinktest.Records(i, 100)))
	}
}

// ofFaulty returns the messages of the faulty stream.
func ofFaulty(messages []string) (all []string) {
	for _, m := range messages {
		var n int
		fmt.Sscanf(m, "record-%d.", &n)
		if n%parkStreams == 7 {
			all = append(all, m)
		}
	}
	return all
}

// wantFaulty returns the first n messages of the faulty stream.
func wantFaulty(n int) (all []string) {
	for i := range n {
		all = append(all, numbered(i*parkStreams+7)...)
	}
	return all
}

func openParked(t *testing.T, o parked.Options) *parked.Store {
	t.Helper()
	store, err := parked.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// A destination refuses one stream of twenty. The others are delivered, the journal does
// not fill, and the refused records arrive once and in order when it accepts them.
func TestFaultyStreamDelaysNoOther(t *testing.T) {
	for name, answer := range map[string]answer{
		"403": func(context.Context, *sink.Batch) error {
			return &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("403")}
		},
		"429 for the stream only": func(context.Context, *sink.Batch) error {
			return &sink.Error{Reason: sink.ReasonStreamLimit, StreamOnly: true, Err: errors.New("429")}
		},
		"504": func(context.Context, *sink.Batch) error { return errors.New("504") },
		"429 with Retry-After: 3600": func(context.Context, *sink.Batch) error {
			return &sink.Error{RetryAfter: time.Hour, Err: errors.New("429")}
		},
		"no response": func(ctx context.Context, _ *sink.Batch) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newJournal(), &fakeSink{takes: time.Millisecond}
				out.setAnswer(func(ctx context.Context, b *sink.Batch) error {
					if b.Stream == faulty {
						return answer(ctx, b)
					}
					return nil
				})
				addAll(in)
				metrics := prometheus.NewRegistry()
				store := openParked(t, parked.Options{Dir: t.TempDir()})
				var log strings.Builder
				start(t.Context(), delivery.Options{
					Consumer: in, Sink: out, Parked: store, Metrics: delivery.NewMetrics(metrics),
					Logger: slog.New(slog.NewTextHandler(&log, nil)), Limits: smallLimits,
				})
				time.Sleep(90 * time.Second)
				synctest.Wait()
				if got, want := len(out.messages()), parkRecords-faultyRecords; got != want {
					t.Errorf("%d of %d good records accepted within 90s", got, want)
				}
				wantAck(t, in, parkRecords)
				if n, _ := store.Size(); n != faultyRecords {
					t.Errorf("%d records are parked, want %d", n, faultyRecords)
				}
				want := strings.NewReader(fmt.Sprintf(`
# HELP hindsight_sink_parked_records Records that are parked at present.
# TYPE hindsight_sink_parked_records gauge
hindsight_sink_parked_records{sink="test"} %[1]d
# HELP hindsight_sink_parked_total Records parked because the destination refused their stream while it accepted others.
# TYPE hindsight_sink_parked_total counter
hindsight_sink_parked_total{sink="test"} %[1]d
`, faultyRecords))
				if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_parked_records", "hindsight_sink_parked_total"); err != nil {
					t.Error(err)
				}

				out.setAnswer(nil)
				in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords, 100)))
				time.Sleep(2 * time.Hour)
				in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords+100, 100)))
				time.Sleep(time.Hour)
				synctest.Wait()
				if n, _ := store.Size(); n != 0 {
					t.Errorf("%d records are still parked", n)
				}
				if got, want := ofFaulty(out.messages()), wantFaulty(faultyRecords+10); !slices.Equal(got, want) {
					t.Errorf("%d records of the stream accepted, want %d in order", len(got), len(want))
				}
				wantAck(t, in, parkRecords+200)
				if n := strings.Count(log.String(), "\n"); n > 8 {
					t.Errorf("%d log lines:\n%s", n, log.String())
				}
			})
		})
	}
}

// While the destination accepts no stream, none is at fault.
func TestNothingIsParkedInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		addAll(in)
		store := parked.NewMemory(0)
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store,
			Limits: sink.Limits{WindowBytes: 20_000, BatchBytes: 100, Concurrency: 16},
		})
		time.Sleep(100 * time.Millisecond)
		out.setAnswer(func(context.Context, *sink.Batch) error { return errors.New("503") })
		synctest.Wait()
		before := len(out.attempts)
		for range 3600 {
			time.Sleep(time.Second)
			if n, _ := store.Size(); n > 0 {
				t.Fatalf("%d records are parked in an outage", n)
			}
		}
		// One at a time, after up to 30 s.
		if n := len(out.attempts) - before; n > 16+8+4+2+300 {
			t.Errorf("%d attempts in an outage of an hour", n)
		}
		out.setAnswer(nil)
		for range 120 {
			time.Sleep(time.Second)
			if n, _ := store.Size(); n > 0 {
				t.Fatalf("%d records are parked after an outage", n)
			}
		}
		if got := len(out.messages()); got != parkRecords {
			t.Errorf("%d of %d records accepted", got, parkRecords)
		}
	})
}

// An overloaded destination refuses batches of all streams. Then records wait in the
// journal.
func TestOverloadDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu       sync.Mutex // guards accepted
			accepted time.Time
		)
		in, out := newJournal(), &fakeSink{takes: time.Millisecond}
		out.setAnswer(func(context.Context, *sink.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			if time.Since(accepted) < 100*time.Millisecond {
				return &sink.Error{Reason: sink.ReasonRateLimited, Err: errors.New("push: 429")}
			}
			accepted = time.Now()
			return nil
		})
		addAll(in)
		metrics := prometheus.NewRegistry()
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: parked.NewMemory(200_000), Metrics: delivery.NewMetrics(metrics),
			Limits: sink.Limits{WindowBytes: 10_000, BatchBytes: 500, Concurrency: 16},
		})
		time.Sleep(time.Minute)
		out.setAnswer(nil)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := dropped(t, metrics, "parked_overflow"); got > 0 {
			t.Errorf("%v records dropped", got)
		}
		if got := len(out.messages()); got != parkRecords {
			t.Errorf("%d of %d records accepted", got, parkRecords)
		}
	})
}

// While a stream cannot be parked, it is retried from the journal.
func TestFaultyStreamIsRetriedWhileItCannotBeParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "file")
		store := openParked(t, parked.Options{Dir: filepath.Join(dir, "loki")})
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		in, out := newJournal(), &fakeSink{takes: time.Millisecond, answer: refuseFaulty}
		addAll(in)
		start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store,
			Limits: sink.Limits{WindowBytes: parkRecords * recordBytes * 2, BatchBytes: 500, Concurrency: 16},
		})
		for i := range 10 {
			time.Sleep(time.Minute)
			in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords+100*i, 100)))
		}
		out.setAnswer(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got, want := len(ofFaulty(out.messages())), faultyRecords+50; got != want {
			t.Errorf("%d of %d records of the stream accepted after the recovery", got, want)
		}
		wantAck(t, in, parkRecords+1000)
	})
}
