package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// fakeJournal is the consumer of a journal with the records that a test adds.
type fakeJournal struct {
	entries chan []journal.Entry
	next    uint64

	mu           sync.Mutex // guards the fields below
	acked        []uint64
	records      []event.Record
	readFailures map[string][]error // by message
}

func newJournal() *fakeJournal {
	return &fakeJournal{entries: make(chan []journal.Entry, 100), readFailures: map[string][]error{}}
}

// recordBytes is the size of a record in this journal.
const recordBytes = 10

func (j *fakeJournal) add(records []event.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var entries []journal.Entry
	for i := range records {
		j.next++
		location := journal.Location{Start: uint32(len(j.records)), Bytes: recordBytes}
		j.records = append(j.records, records[i])
		entries = append(entries, journal.Entry{Offset: j.next, Location: location, Record: &records[i]})
	}
	j.entries <- entries
}

// addUnstored adds a gap record that the journal does not store.
func (j *fakeJournal) addUnstored(g event.Gap) {
	r := event.NewGap(g)
	j.next++
	j.entries <- []journal.Entry{{Offset: j.next, Record: &r}}
}

// failReads makes reads of a record fail, with one error after the other.
func (j *fakeJournal) failReads(message string, failures ...error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.readFailures[message] = failures
}

func (j *fakeJournal) Next(ctx context.Context, _ int, visit func(journal.Entry)) (int, error) {
	visitAll := func(entries []journal.Entry) (int, error) {
		for _, e := range entries {
			visit(e)
		}
		return len(entries), nil
	}
	select {
	case e := <-j.entries:
		return visitAll(e)
	default:
	}
	select {
	case e := <-j.entries:
		return visitAll(e)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (j *fakeJournal) Read(locations []journal.Location, visit func(*event.Record)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range locations {
		r := j.records[l.Start]
		if failures := j.readFailures[r.Event.Message]; len(failures) > 0 {
			j.readFailures[r.Event.Message] = failures[1:]
			return failures[0]
		}
		visit(&r)
	}
	return nil
}

func (j *fakeJournal) Ack(offset uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acked = append(j.acked, offset)
	return nil
}

func (j *fakeJournal) lastAck() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.acked) == 0 {
		return 0
	}
	return j.acked[len(j.acked)-1]
}

// answer is the outcome of an attempt. Attempts of different streams call it
// concurrently.
type answer func(ctx context.Context, b *sink.Batch) error

// fakeSink returns the given errors, then asks answer, then accepts. The stream of a
// record is its namespace, and its data is its message.
type fakeSink struct {
	takes time.Duration // duration of an attempt

	mu         sync.Mutex // guards the fields below
	errors     []error
	answer     answer
	attempts   []time.Time
	inFlight   map[string]int
	maxFlight  int // batches in flight at the same time
	accepted   []string
	batches    []int    // numbers of records of accepted batches
	concurrent []string // streams with two batches in flight
	dead       []string // dead letters
}

func (s *fakeSink) AppendStream(dst []byte, r *event.Record) []byte {
	return append(dst, r.Event.Namespace...)
}

func (s *fakeSink) AppendRecord(dst []byte, r *event.Record) []byte {
	return append(dst, r.Event.Message...)
}

func (s *fakeSink) Send(ctx context.Context, b *sink.Batch) error {
	s.begin(b)
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
	}
	err := ctx.Err()
	if answer := s.end(b, &err); err == nil && answer != nil {
		err = answer(ctx, b)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted = append(s.accepted, records(b)...)
	s.batches = append(s.batches, b.Len())
	return nil
}

func (s *fakeSink) begin(b *sink.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, time.Now())
	if s.inFlight == nil {
		s.inFlight = map[string]int{}
	}
	s.inFlight[b.Stream]++
	if s.inFlight[b.Stream] > 1 {
		s.concurrent = append(s.concurrent, b.Stream)
	}
	n := 0
	for _, batches := range s.inFlight {
		n += batches
	}
	s.maxFlight = max(s.maxFlight, n)
}

// end sets err to the next of the given errors, or returns answer.
func (s *fakeSink) end(b *sink.Batch, err *error) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight[b.Stream]--
	if *err == nil && len(s.errors) > 0 {
		*err = s.errors[0]
		s.errors = s.errors[1:]
		return nil
	}
	return s.answer
}

func (s *fakeSink) DeadLetter(b *sink.Batch, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = append(s.dead, records(b)...)
}

func (s *fakeSink) Close() error { return nil }

func (s *fakeSink) setAnswer(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
}

// messages returns the messages of the accepted records.
func (s *fakeSink) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.accepted)
}

func records(b *sink.Batch) (all []string) {
	for i := range b.Len() {
		all = append(all, string(b.Record(i)))
	}
	return all
}

// refuse returns an answer that refuses the batches of one stream.
func refuse(stream string, err error) answer {
	return func(_ context.Context, b *sink.Batch) error {
		if b.Stream == stream {
			return err
		}
		return nil
	}
}

// hangOnce returns an answer that does not return before the end of the first attempt.
func hangOnce() answer {
	hung := false
	return func(ctx context.Context, _ *sink.Batch) error {
		if hung {
			return nil
		}
		hung = true
		<-ctx.Done()
		return ctx.Err()
	}
}

// start runs a delivery in a goroutine; wait returns its error.
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

// finish drains a delivery and waits for its end.
func finish(t *testing.T, d *delivery.Delivery, wait func() error) {
	t.Helper()
	d.Drain()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// inNamespaces distributes records over n namespaces.
func inNamespaces(n int, records []event.Record) []event.Record {
	for i := range records {
		records[i].Event.Namespace = fmt.Sprintf("ns-%d", i%n)
	}
	return records
}

// inNamespace returns a record in a namespace.
func inNamespace(namespace string, number int) []event.Record {
	r := sinktest.Records(number, 1)
	r[0].Event.Namespace = namespace
	return r
}

// numbered returns the messages of records.
func numbered(numbers ...int) (messages []string) {
	for _, n := range numbers {
		messages = append(messages, fmt.Sprintf("record-%d.", n))
	}
	return messages
}

// wantMessages checks the accepted records and their order.
func wantMessages(t *testing.T, s *fakeSink, want ...string) {
	t.Helper()
	if got := s.messages(); !slices.Equal(got, want) {
		t.Errorf("accepted %q\nwant %q", got, want)
	}
}

func wantAck(t *testing.T, j *fakeJournal, want uint64) {
	t.Helper()
	if got := j.lastAck(); got != want {
		t.Errorf("acknowledged up to %d, want %d", got, want)
	}
}

// dropped returns the number of records that are counted as dropped for a reason.
func dropped(t *testing.T, metrics *prometheus.Registry, reason string) (n float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "hindsight_sink_dropped_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" && l.GetValue() == reason {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
