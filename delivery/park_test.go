package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// perStream is a destination that answers by stream, after a delay.
type perStream struct {
	scripted
	refuse func(ctx context.Context, b *sink.Batch) error // nil: accepted

	given sync.Mutex // guards dead
	dead  []string
}

func (p *perStream) Send(ctx context.Context, b *sink.Batch) error {
	select {
	case <-time.After(time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	refuse := p.refuse
	p.attempts = append(p.attempts, time.Now())
	p.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx, b); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range b.Len() {
		p.accepted = append(p.accepted, string(b.Record(i)))
	}
	return nil
}

func (p *perStream) DeadLetter(b *sink.Batch, reason string) {
	p.given.Lock()
	defer p.given.Unlock()
	for i := range b.Len() {
		p.dead = append(p.dead, string(b.Record(i)))
	}
}

func (p *perStream) set(refuse func(context.Context, *sink.Batch) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// of returns the messages of one of the streams of inNamespaces.
func of(messages []string, stream, streams int) (mine []string) {
	for _, m := range messages {
		var n int
		fmt.Sscanf(m, "record-%d.", &n)
		if n%streams == stream {
			mine = append(mine, m)
		}
	}
	return mine
}

const (
	parkStreams = 20
	parkRecords = 10_000
	bad         = "ns-7"
)

func addAll(in *source) {
	for i := 0; i < parkRecords; i += 100 {
		in.add(inNamespaces(parkStreams, sinktest.Records(i, 100)))
	}
}

// refusals are ways to refuse a stream, or some, while others are accepted.
var refusals = map[string]func(ctx context.Context, b *sink.Batch) error{
	"403": func(context.Context, *sink.Batch) error {
		return &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("403")}
	},
	"429 that is known to be about the stream": func(context.Context, *sink.Batch) error {
		return &sink.Error{Reason: sink.ReasonStreamLimit, StreamOnly: true, Err: errors.New("429")}
	},
	"504": func(context.Context, *sink.Batch) error { return errors.New("504") },
	"429 and a pause of an hour": func(context.Context, *sink.Batch) error {
		return &sink.Error{RetryAfter: time.Hour, Err: errors.New("429")}
	},
	"no answer": func(ctx context.Context, _ *sink.Batch) error {
		<-ctx.Done()
		return ctx.Err()
	},
}

// One stream of twenty is refused: the others are delivered, the journal does not
// fill, and the refused records arrive in order and once when they are accepted.
func TestAStreamThatIsRefusedHoldsUpNoOther(t *testing.T) {
	for name, refuse := range refusals {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newSource(), &perStream{}
				out.set(func(ctx context.Context, b *sink.Batch) error {
					if b.Stream == bad {
						return refuse(ctx, b)
					}
					return nil
				})
				addAll(in)
				metrics := prometheus.NewRegistry()
				store, err := parked.Open(parked.Options{Dir: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				var log strings.Builder
				_, wait := start(t.Context(), delivery.Options{
					Consumer: in, Sink: out, Parked: store, Metrics: delivery.NewMetrics(metrics),
					Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Limits: sink.Limits{WindowBytes: 1000, BatchBytes: 500, Concurrency: 16, Timeout: 10 * time.Second},
				})
				time.Sleep(90 * time.Second)
				synctest.Wait()
				const good = parkRecords / parkStreams * (parkStreams - 1)
				if got := len(out.messages()); got != good {
					t.Errorf("%d of %d good records arrived within 90 s", got, good)
				}
				if got := in.lastAck(); got != parkRecords {
					t.Errorf("acknowledged up to %d of %d: the journal keeps parked records", got, parkRecords)
				}
				if n, _ := store.Size(); n != parkRecords-good {
					t.Errorf("%d records are parked, want %d", n, parkRecords-good)
				}
				want := strings.NewReader(fmt.Sprintf(`
# HELP hindsight_sink_parked_records Records that are parked at present.
# TYPE hindsight_sink_parked_records gauge
hindsight_sink_parked_records{sink="test"} %[1]d
# HELP hindsight_sink_parked_total Records parked because the destination refused their stream while it accepted others.
# TYPE hindsight_sink_parked_total counter
hindsight_sink_parked_total{sink="test"} %[1]d
`, parkRecords-good))
				if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_parked_records", "hindsight_sink_parked_total"); err != nil {
					t.Error(err)
				}
				out.set(nil)
				in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords, 100)))
				time.Sleep(2 * time.Hour)
				in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords+100, 100)))
				time.Sleep(time.Hour)
				synctest.Wait()
				if n, _ := store.Size(); n != 0 {
					t.Errorf("%d records are still parked", n)
				}
				var all []string
				for i := range parkRecords + 200 {
					all = append(all, fmt.Sprintf("record-%d.", i))
				}
				if got, want := of(out.messages(), 7, parkStreams), of(all, 7, parkStreams); !slices.Equal(got, want) {
					t.Errorf("the stream arrived as %d records, want %d in their order", len(got), len(want))
				}
				if got := in.lastAck(); got != parkRecords+200 {
					t.Errorf("acknowledged up to %d", got)
				}
				if n := strings.Count(log.String(), "\n"); n > 8 {
					t.Errorf("%d lines of log:\n%s", n, log.String())
				}
				_ = wait
			})
		})
	}
}

// While nothing is accepted, nothing is parked: the destination is to blame.
func TestNothingIsParkedWhileTheDestinationIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &perStream{}
		addAll(in)
		store := parked.NewMemory(0)
		_, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store,
			Limits: sink.Limits{WindowBytes: 20_000, BatchBytes: 100, Concurrency: 16},
		})
		time.Sleep(100 * time.Millisecond)
		out.set(func(context.Context, *sink.Batch) error { return errors.New("503") })
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
		out.set(nil)
		for range 120 {
			time.Sleep(time.Second)
			if n, _ := store.Size(); n > 0 {
				t.Fatalf("%d records are parked after an outage", n)
			}
		}
		if got := len(out.messages()); got != parkRecords {
			t.Errorf("%d of %d records arrived", got, parkRecords)
		}
		_ = wait
	})
}

// Parked records are on disk before they are acknowledged, and the next process sends
// them.
func TestParkedRecordsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		open := func() *parked.Store {
			store, err := parked.Open(parked.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return store
		}
		in, out := newSource(), &perStream{}
		out.set(func(_ context.Context, b *sink.Batch) error {
			if b.Stream == bad {
				return errors.New("403")
			}
			return nil
		})
		addAll(in)
		ctx, cancel := context.WithCancel(t.Context())
		limits := sink.Limits{WindowBytes: 1000, BatchBytes: 500, Concurrency: 16}
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Parked: open(), Limits: limits})
		time.Sleep(time.Minute)
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := in.lastAck(); got != parkRecords {
			t.Fatalf("acknowledged up to %d", got)
		}

		in, out = newSource(), &perStream{}
		in.add(inNamespaces(parkStreams, sinktest.Records(parkRecords, 100)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: open(), Limits: limits})
		time.Sleep(time.Minute)
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		got := of(out.messages(), 7, parkStreams)
		if len(got) != parkRecords/parkStreams+5 {
			t.Fatalf("%d records of the stream arrived", len(got))
		}
		for i, m := range got {
			if want := fmt.Sprintf("record-%d.", i*parkStreams+7); m != want {
				t.Fatalf("record %d of the stream is %s, want %s", i, m, want)
			}
		}
		if n, _ := open().Size(); n != 0 {
			t.Errorf("%d records are still parked", n)
		}
	})
}

// Past the bound the oldest records are given up: counted, logged once, and passed to
// a sink that keeps dead letters.
func TestParkedRecordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in, out := newSource(), &perStream{}
		out.set(func(_ context.Context, b *sink.Batch) error {
			if b.Stream == bad {
				return &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("push: 403")}
			}
			return nil
		})
		addAll(in)
		metrics := prometheus.NewRegistry()
		store := parked.NewMemory(50_000)
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out, Parked: store, Metrics: delivery.NewMetrics(metrics),
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Limits: sink.Limits{WindowBytes: 1000, BatchBytes: 500, Concurrency: 16},
		})
		time.Sleep(90 * time.Second)
		synctest.Wait()
		records, bytes := store.Size()
		if bytes > 50_000 || bytes < 40_000 {
			t.Errorf("%d bytes are parked, want 50000 at most", bytes)
		}
		if want := parkRecords/parkStreams - records; len(out.dead) != want || want == 0 {
			t.Errorf("%d dead letters, want %d", len(out.dead), want)
		}
		for i, m := range out.dead {
			if want := fmt.Sprintf("record-%d.", i*parkStreams+7); m != want {
				t.Fatalf("dead letter %d is %s, want %s: the oldest", i, m, want)
			}
		}
		if n := strings.Count(log.String(), "exceed their bound"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "push: 403") || !strings.Contains(err.Error(), bad) {
			t.Errorf("ready says %v", err)
		}
		out.set(nil)
		time.Sleep(10 * time.Minute)
		if err := d.Ready(); err != nil {
			t.Errorf("after it was mended, ready says %v", err)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := len(of(out.messages(), 7, parkStreams)); got != records {
			t.Errorf("%d of %d parked records arrived", got, records)
		}
		want := strings.NewReader(fmt.Sprintf(`
# HELP hindsight_sink_dropped_total Records that will never reach the sink, by reason.
# TYPE hindsight_sink_dropped_total counter
hindsight_sink_dropped_total{reason="damage",sink="test"} 0
hindsight_sink_dropped_total{reason="overflow",sink="test"} 0
hindsight_sink_dropped_total{reason="parked_expired",sink="test"} 0
hindsight_sink_dropped_total{reason="parked_lost",sink="test"} 0
hindsight_sink_dropped_total{reason="parked_overflow",sink="test"} %d
hindsight_sink_dropped_total{reason="refused",sink="test"} 0
hindsight_sink_dropped_total{reason="removed",sink="test"} 0
`, len(out.dead)))
		if err := testutil.GatherAndCompare(metrics, want, "hindsight_sink_dropped_total"); err != nil {
			t.Error(err)
		}
	})
}

// A backlog of a stream that is refused for a temporary reason does not make the sink
// unready; a record that is alone in its stream is parked like any other, and given up
// after a week.
func TestAParkedRecordIsGivenUpAfterAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &perStream{}
		out.set(func(_ context.Context, b *sink.Batch) error {
			if strings.HasPrefix(string(b.Data), "record-7.") {
				return errors.New("503")
			}
			return nil
		})
		store := parked.NewMemory(0)
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Parked: store})
		in.add(inNamespaces(10, sinktest.Records(0, 10)))
		for i := range 10 {
			time.Sleep(20 * time.Second)
			records := sinktest.Records(10+i, 1)
			records[0].Event.Namespace = "other"
			in.add(records)
		}
		time.Sleep(time.Hour)
		if n, _ := store.Size(); n != 1 || in.lastAck() != 20 {
			t.Errorf("%d records are parked and %d acknowledged, want 1 and 20", n, in.lastAck())
		}
		if err := d.Ready(); err != nil {
			t.Errorf("ready says %v", err)
		}
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if n, _ := store.Size(); n != 0 || !slices.Equal(out.dead, []string{"record-7."}) {
			t.Errorf("after 8 days %d records are parked and %v given up", n, out.dead)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// A delivery with a store of its own for parked records ends although a stream is
// refused, and reports the number of its records.
func TestDeliveryEndsWhileAStreamIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &perStream{}
		out.set(func(_ context.Context, b *sink.Batch) error {
			if b.Stream == bad {
				return errors.New("403")
			}
			return nil
		})
		addAll(in)
		began := time.Now()
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchBytes: 500, Concurrency: 16}})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		const refused = parkRecords / parkStreams
		if n := d.DropParked(); n != refused || len(out.dead) != refused || in.lastAck() != parkRecords {
			t.Errorf("%d records given up, %d dead letters, %d acknowledged; want %d, %[4]d, %d", n, len(out.dead), in.lastAck(), refused, parkRecords)
		}
		if n := len(out.messages()); n != parkRecords-refused {
			t.Errorf("%d others arrived", n)
		}
	})
}
