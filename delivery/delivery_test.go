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
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// source is a journal's consumer over what a test puts into it.
type source struct {
	entries chan []journal.Entry
	next    uint64

	mu       sync.Mutex // guards the rest
	acked    []uint64
	log      []event.Record
	failures map[string][]error // of Read, by message
	lost     []uint64
}

func newSource() *source {
	return &source{entries: make(chan []journal.Entry, 100), failures: map[string][]error{}}
}

// recordBytes is what a record takes in this journal.
const recordBytes = 10

func (s *source) add(records []event.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []journal.Entry
	for i := range records {
		s.next++
		place := journal.Location{Start: uint32(len(s.log)), Bytes: recordBytes}
		s.log = append(s.log, records[i])
		entries = append(entries, journal.Entry{Offset: s.next, Location: place, Record: &records[i]})
	}
	s.entries <- entries
}

// declare adds a gap record that is not in the log.
func (s *source) declare(g event.Gap) {
	r := event.NewGap(g)
	s.next++
	s.entries <- []journal.Entry{{Offset: s.next, Record: &r}}
}

func (s *source) Next(ctx context.Context, _ int, visit func(journal.Entry)) (int, error) {
	visitAll := func(entries []journal.Entry) (int, error) {
		for _, e := range entries {
			visit(e)
		}
		return len(entries), nil
	}
	select {
	case e := <-s.entries:
		return visitAll(e)
	default:
	}
	select {
	case e := <-s.entries:
		return visitAll(e)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *source) Read(places []journal.Location, visit func(*event.Record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range places {
		r := s.log[p.Start]
		if failures := s.failures[r.Event.Message]; len(failures) > 0 {
			s.failures[r.Event.Message] = failures[1:]
			return failures[0]
		}
		visit(&r)
	}
	return nil
}

func (s *source) ReplaceWithGap(offset uint64) event.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = append(s.lost, offset)
	return event.NewGap(event.Gap{Cause: event.CauseDamage, Namespace: "gaps", From: event.Position{Version: offset}})
}

func (s *source) Ack(offset uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = append(s.acked, offset)
	return nil
}

func (s *source) lastAck() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acked) == 0 {
		return 0
	}
	return s.acked[len(s.acked)-1]
}

// scripted is a sink that answers each attempt as it was told, then accepts. The
// streams are the records' namespaces, the data their messages.
type scripted struct {
	takes  time.Duration // an attempt
	answer func(b *sink.Batch) error

	mu       sync.Mutex // guards the rest
	answers  []error
	attempts []time.Time
	inFlight map[string]int
	most     int // in flight at once
	accepted []string
	batches  []int // records in each that was accepted
	problems []string
}

func (s *scripted) AppendStream(dst []byte, r *event.Record) []byte {
	return append(dst, r.Event.Namespace...)
}

func (s *scripted) AppendRecord(dst []byte, r *event.Record) []byte {
	return append(dst, r.Event.Message...)
}

func (s *scripted) Send(_ context.Context, b *sink.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, time.Now())
	if s.inFlight == nil {
		s.inFlight = map[string]int{}
	}
	s.inFlight[b.Stream]++
	if s.inFlight[b.Stream] > 1 {
		s.problems = append(s.problems, "two batches of stream "+b.Stream+" in flight at once")
	}
	now := 0
	for _, n := range s.inFlight {
		now += n
	}
	s.most = max(s.most, now)
	if s.takes > 0 {
		s.mu.Unlock()
		time.Sleep(s.takes)
		s.mu.Lock()
	}
	s.inFlight[b.Stream]--
	if len(s.answers) > 0 {
		err := s.answers[0]
		s.answers = s.answers[1:]
		return err
	}
	if s.answer != nil {
		if err := s.answer(b); err != nil {
			return err
		}
	}
	for i := range b.Len() {
		s.accepted = append(s.accepted, string(b.Record(i)))
	}
	s.batches = append(s.batches, b.Len())
	return nil
}

func (s *scripted) Close() error { return nil }

// messages returns what was accepted.
func (s *scripted) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.accepted)
}

// start runs a delivery in the background; wait returns its error.
func start(ctx context.Context, o delivery.Options) (d *delivery.Delivery, wait func() error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Name = "test"
	d = delivery.New(o)
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d, func() error { return <-done }
}

func TestDeliveryRetriesUntilAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		in, out := newSource(), &scripted{answers: slices.Repeat([]error{errors.New("no route to host")}, 20)}
		in.add(sinktest.Records(0, 3))
		metrics := prometheus.NewRegistry()
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out,
			Limits:  sink.Limits{MinBackoff: time.Second, MaxBackoff: 30 * time.Second},
			Logger:  slog.New(slog.NewTextHandler(&log, nil)),
			Metrics: delivery.NewMetrics(metrics),
		})
		time.Sleep(time.Minute) // of the test's own clock
		if got := in.lastAck(); got != 0 {
			t.Errorf("acknowledged up to %d although nothing was accepted", got)
		}
		if s := d.State(); s.Err == nil || time.Since(s.Since) != time.Minute {
			t.Errorf("state is %+v, want failing for a minute", s)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1.", "record-2."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got := in.lastAck(); got != 3 {
			t.Errorf("acknowledged up to %d, want 3", got)
		}
		for i := 1; i < len(out.attempts); i++ {
			if pause := out.attempts[i].Sub(out.attempts[i-1]); pause < time.Second || pause > 30*time.Second {
				t.Errorf("pause before attempt %d is %v, want between 1 s and 30 s", i+1, pause)
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines of log, want the first failure and the recovery:\n%s", n, log.String())
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

func TestDeliveryHonoursRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{answers: []error{&sink.Error{RetryAfter: 7 * time.Minute, Err: errors.New("busy")}}}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := out.attempts[1].Sub(out.attempts[0]); got < 7*time.Minute || got > 9*time.Minute {
			t.Errorf("tried again after %v, want 7m and some jitter", got)
		}
	})
}

func TestDeliveryEnds(t *testing.T) {
	refused := &sink.Error{Rejected: []sink.Rejection{{Index: 1, Reason: "too old"}}, Err: errors.New("400")}
	for name, c := range map[string]struct {
		answer    error
		wantErr   string
		wantAcked uint64
	}{
		"with an error where the destination is gone for good": {
			&sink.Error{Permanent: true, Err: errors.New("broken pipe")}, "sink test: broken pipe", 0,
		},
		"without one where single records were refused: the rest is accepted": {refused, "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			in, out := newSource(), &scripted{answers: []error{c.answer}}
			in.add(sinktest.Records(0, 3))
			d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
			d.Drain()
			if err := wait(); fmt.Sprint(err) != c.wantErr && (err != nil || c.wantErr != "") {
				t.Errorf("got error %v, want %q", err, c.wantErr)
			}
			if len(out.attempts) != 1 {
				t.Errorf("%d attempts, want 1", len(out.attempts))
			}
			if got := in.lastAck(); got != c.wantAcked {
				t.Errorf("acknowledged up to %d, want %d", got, c.wantAcked)
			}
		})
	}
}

func TestDeliveryStopsInTheMiddleOfARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{answers: slices.Repeat([]error{errors.New("down")}, 1000)}
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
			t.Errorf("stopped %v after it was told to", waited)
		}
		if got := in.lastAck(); got != 0 {
			t.Errorf("acknowledged up to %d although nothing was accepted", got)
		}
	})
}

func TestDeliveryWaitsForMoreRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{}
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchWait: time.Second}})
		begin := time.Now()
		in.add(sinktest.Records(0, 2))
		time.Sleep(900 * time.Millisecond)
		in.add(sinktest.Records(2, 2))
		time.Sleep(900 * time.Millisecond)
		in.add(sinktest.Records(4, 1))
		time.Sleep(time.Minute)
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out.batches, []int{4, 1}) {
			t.Fatalf("got batches of %v records, want 4 and 1", out.batches)
		}
		if got := out.attempts[0].Sub(begin); got != time.Second {
			t.Errorf("the first batch went out after %v, want 1s", got)
		}
		if got := out.attempts[1].Sub(begin); got != 2800*time.Millisecond {
			t.Errorf("the second batch went out after %v, want 1s after its record came", got)
		}
	})
}

func TestDeliverySkipsWhatTheSinkDoesNotWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{}
		records := sinktest.Records(0, 4)
		records[1].Event = nil // moves the position only
		gap := event.NewGap(event.Gap{Namespace: "monitoring", Cause: event.CauseTooOld})
		in.add(append(records, gap))
		d, wait := start(t.Context(), delivery.Options{
			Consumer: in, Sink: out,
			Match: func(r *event.Record) bool { return r.Event.Message == "record-2." },
		})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-2.", gap.Event.Message}; !slices.Equal(got, want) {
			t.Errorf("delivered %q, want %q", got, want)
		}
		if got := in.lastAck(); got != 5 {
			t.Errorf("acknowledged up to %d, want 5: what is not wanted must not hold space", got)
		}
	})
}

// inNamespaces spreads records over that many namespaces.
func inNamespaces(n int, records []event.Record) []event.Record {
	for i := range records {
		records[i].Event.Namespace = fmt.Sprintf("ns-%d", i%n)
	}
	return records
}

func TestDeliverySendsStreamsAtOnceAndEachInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{takes: time.Second}
		const records, streams, concurrency = 200, 10, 4
		in.add(inNamespaces(streams, sinktest.Records(0, records)))
		begin := time.Now()
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: concurrency, BatchBytes: 100}})
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if len(out.problems) > 0 {
			t.Error(out.problems)
		}
		if out.most != concurrency {
			t.Errorf("%d batches in flight at most, want %d", out.most, concurrency)
		}
		got := out.messages()
		if len(got) != records {
			t.Fatalf("%d records arrived, want %d", len(got), records)
		}
		last := map[int]int{}
		for _, m := range got {
			var n int
			fmt.Sscanf(m, "record-%d.", &n)
			if before, ok := last[n%streams]; ok && n <= before {
				t.Fatalf("record %d of stream %d came after %d", n, n%streams, before)
			}
			last[n%streams] = n
		}
		if got := in.lastAck(); got != records {
			t.Errorf("acknowledged up to %d, want %d", got, records)
		}
		// 20 records a stream, 10 a batch: 20 batches, four at once.
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %v, want 5s", took)
		}
	})
}

func TestDeliveryAcknowledgesInTheOrderOfTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		first := true
		out := &scripted{answer: func(b *sink.Batch) error {
			if b.Stream == "ns-0" && first {
				first = false
				return &sink.Error{StreamOnly: true, RetryAfter: time.Minute, Err: errors.New("too much of this stream")}
			}
			return nil
		}}
		in.add(inNamespaces(2, sinktest.Records(0, 4))) // the first is of ns-0
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 2}})
		time.Sleep(30 * time.Second)
		if got, want := out.messages(), []string{"record-1.", "record-3."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v while a stream rests, want those of the other: %v", got, want)
		}
		if got := in.lastAck(); got != 0 {
			t.Errorf("acknowledged up to %d although the first record was not accepted", got)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages()[2:], []string{"record-0.", "record-2."}; !slices.Equal(got, want) {
			t.Errorf("then delivered %v, want %v", got, want)
		}
		if got := in.lastAck(); got != 4 {
			t.Errorf("acknowledged up to %d, want 4", got)
		}
	})
}

func TestDeliveryProbesARecoveringDestinationGently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		up := false
		out := &scripted{takes: time.Millisecond, answer: func(*sink.Batch) error {
			if !up {
				return errors.New("503")
			}
			return nil
		}}
		in.add(inNamespaces(100, sinktest.Records(0, 100)))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 16, MinBackoff: time.Second, MaxBackoff: time.Second}})
		time.Sleep(time.Minute)
		out.mu.Lock()
		out.most, up = 0, true
		failed := len(out.attempts)
		out.mu.Unlock()
		// 16, 8, 4, 2 and then one a second.
		if failed > 16+8+4+2+60 {
			t.Errorf("%d attempts in a minute in which nothing was accepted", failed)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got := len(out.messages()); got != 100 {
			t.Errorf("%d records arrived, want 100", got)
		}
		if out.most < 10 {
			t.Errorf("never more than %d batches at once after the recovery, want the concurrency regained", out.most)
		}
	})
}

func TestDeliveryKeepsItsRates(t *testing.T) {
	for name, c := range map[string]struct {
		limits  sink.Limits
		streams int
		want    time.Duration
	}{
		// 100 records of 10 bytes, "record-10." and so on.
		"of a stream":       {sink.Limits{StreamRate: 100, BatchBytes: 10}, 1, 9 * time.Second},
		"of each stream":    {sink.Limits{StreamRate: 100, BatchBytes: 10, Concurrency: 10}, 10, 900 * time.Millisecond},
		"of a destination":  {sink.Limits{Rate: 100, BatchBytes: 10, Concurrency: 10}, 10, 8 * time.Second},
		"without any bound": {sink.Limits{BatchBytes: 10}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newSource(), &scripted{}
				in.add(inNamespaces(c.streams, sinktest.Records(10, 90)))
				begin := time.Now()
				d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: c.limits})
				d.Drain()
				if err := wait(); err != nil {
					t.Fatal(err)
				}
				// The last batch takes its time only after it was sent.
				took := out.attempts[len(out.attempts)-1].Sub(begin)
				if diff := (took - c.want).Abs(); diff > 200*time.Millisecond {
					t.Errorf("took %v, want about %v", took, c.want)
				}
			})
		})
	}
}

// A stream is forgotten once it has nothing to send and has rested; when it comes
// again, what comes after that does not overtake it.
func TestDeliveryKeepsTheOrderOfAStreamThatComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		refused := false
		out := &scripted{answer: func(b *sink.Batch) error {
			if strings.HasPrefix(string(b.Data), "third") && !refused {
				refused = true
				return &sink.Error{StreamOnly: true, RetryAfter: time.Hour, Err: errors.New("later")}
			}
			return nil
		}}
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{StreamRate: 10}})
		send := func(namespace, message string) {
			records := sinktest.Records(0, 1)
			records[0].Event.Namespace, records[0].Event.Message = namespace, message
			in.add(records)
			synctest.Wait()
		}
		send("a", "first.....")                  // rests for a second
		send("b", "b"+strings.Repeat(".", 1000)) // rests for 100
		send("a", "second....")
		time.Sleep(10 * time.Second)
		send("c", "c") // a has rested
		send("a", "third.....")
		time.Sleep(200 * time.Second)
		send("d", "d") // b has rested
		send("a", "fourth....")
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range out.messages() {
			if len(m) == len("first.....") {
				got = append(got, strings.TrimRight(m, "."))
			}
		}
		if want := []string{"first", "second", "third", "fourth"}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
	})
}

// Large batches are copied and compressed on their way: a few at once will do.
func TestDeliveryKeepsFewBytesInFlight(t *testing.T) {
	for bytes, want := range map[int]int{1000: 16, 300 << 10: 4, 2 << 20: 1} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newSource(), &scripted{takes: time.Second}
				records := inNamespaces(20, sinktest.Records(0, 40))
				for i := range records {
					records[i].Event.Message = strings.Repeat("m", bytes)
				}
				in.add(records)
				d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Concurrency: 16, BatchBytes: 500}})
				d.Drain()
				if err := wait(); err != nil {
					t.Fatal(err)
				}
				if out.most != want {
					t.Errorf("%d batches of %d bytes in flight at once, want %d", out.most, bytes, want)
				}
				if got := len(out.messages()); got != len(records) {
					t.Errorf("%d records arrived, want %d", got, len(records))
				}
			})
		})
	}
}

func TestDeliveryTakesNoMoreThanItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := newSource(), &scripted{answers: slices.Repeat([]error{errors.New("down")}, 1000)}
		for i := range 50 {
			in.add(sinktest.Records(i*10, 10))
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{WindowBytes: 500}})
		time.Sleep(time.Hour)
		if taken := 50 - len(in.entries); taken > 7 {
			t.Errorf("%d groups of 10 records were taken while nothing was accepted, want no more than fill 500 bytes", taken)
		}
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDeliveryGivesAnAttemptNoMoreThanItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		in, out := newSource(), &hanging{}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{Timeout: 10 * time.Second}, Metrics: delivery.NewMetrics(metrics)})
		time.Sleep(5 * time.Second)
		if s := d.State(); s.Err != nil || time.Since(s.Since) != 5*time.Second {
			t.Errorf("state is %+v, want one that is being tried for 5s", s)
		}
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
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

// hanging does not answer the first attempt.
type hanging struct {
	scripted
	hung bool
}

func (h *hanging) Send(ctx context.Context, b *sink.Batch) error {
	if !h.hung {
		h.hung = true
		<-ctx.Done()
		return ctx.Err()
	}
	return h.scripted.Send(ctx, b)
}

// A sink can tell a bad record from a bad stream only by others of the stream,
// which come later.
func TestDeliveryAddsToABatchThatFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		out := &scripted{answer: func(b *sink.Batch) error {
			if b.Len() < 3 {
				return &sink.Error{StreamOnly: true, Err: errors.New("is it me or the record?")}
			}
			return nil
		}}
		in.add(sinktest.Records(0, 1))
		d, wait := start(t.Context(), delivery.Options{Consumer: in, Sink: out})
		time.Sleep(time.Minute)
		in.add(sinktest.Records(1, 1))
		time.Sleep(time.Minute)
		if got := in.lastAck(); got != 0 {
			t.Errorf("acknowledged up to %d although nothing was accepted", got)
		}
		in.add(sinktest.Records(2, 1))
		d.Drain()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.messages(), []string{"record-0.", "record-1.", "record-2."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if got := in.lastAck(); got != 3 {
			t.Errorf("acknowledged up to %d, want 3", got)
		}
	})
}

// What waited behind a failing batch joins it as well.
func TestDeliveryJoinsWhatWaitsBehindABatchThatFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newSource()
		out := &scripted{answer: func(b *sink.Batch) error {
			if b.Len() < 2 {
				return &sink.Error{StreamOnly: true, Err: errors.New("alone")}
			}
			return nil
		}}
		in.add(sinktest.Records(0, 5))
		ctx, cancel := context.WithCancel(t.Context())
		_, wait := start(ctx, delivery.Options{Consumer: in, Sink: out, Limits: sink.Limits{BatchBytes: 1}}) // a record a batch
		time.Sleep(time.Hour)
		cancel()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		// The last is alone.
		if got, want := out.messages(), []string{"record-0.", "record-1.", "record-2.", "record-3."}; !slices.Equal(got, want) {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if !slices.Equal(out.batches, []int{2, 2}) {
			t.Errorf("in batches of %v, want 2 and 2", out.batches)
		}
		if got := in.lastAck(); got != 4 {
			t.Errorf("acknowledged up to %d, want 4", got)
		}
	})
}

func TestDeliveryIsUnreadyAtOnceOnlyForWhatWillNotPass(t *testing.T) {
	const (
		never = iota
		atOnce
		afterFiveMinutes
	)
	for name, c := range map[string]struct {
		accepted bool // something before
		answer   error
		unready  int
	}{
		"accepted":                          {unready: never},
		"no connection since the start":     {answer: errors.New("refused"), unready: atOnce},
		"no connection after a success":     {accepted: true, answer: errors.New("refused"), unready: afterFiveMinutes},
		"wrong credentials after a success": {accepted: true, answer: &sink.Error{Reason: sink.ReasonUnauthorized, Err: errors.New("no")}, unready: atOnce},
		"disk full after a success":         {accepted: true, answer: &sink.Error{Reason: sink.ReasonNoSpace, Err: errors.New("no")}, unready: atOnce},
		"busy after a success":              {accepted: true, answer: &sink.Error{Reason: sink.ReasonRateLimited, Err: errors.New("no")}, unready: afterFiveMinutes},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				in, out := newSource(), &scripted{}
				d, wait := start(ctx, delivery.Options{Consumer: in, Sink: out})
				if c.accepted {
					in.add(sinktest.Records(0, 1))
					synctest.Wait()
				}
				out.answer = func(*sink.Batch) error { return c.answer }
				in.add(sinktest.Records(1, 1))
				synctest.Wait()
				if err := d.Ready(); (err != nil) != (c.unready == atOnce) {
					t.Errorf("at once it says %v", err)
				}
				time.Sleep(5 * time.Minute) // of the test's own clock
				if err := d.Ready(); (err != nil) != (c.unready != never) {
					t.Errorf("after five minutes it says %v", err)
				}
				out.mu.Lock()
				out.answer = nil
				out.mu.Unlock()
				time.Sleep(time.Minute)
				if err := d.Ready(); err != nil {
					t.Errorf("once everything is accepted it says %v", err)
				}
				cancel()
				if err := wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
