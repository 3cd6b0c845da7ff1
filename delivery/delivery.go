// Package delivery moves records from the journal to a sink: it matches them, sends them in
// batches, retries failed batches, and acknowledges the completed ones.
package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
)

// Options of a Delivery.
type Options struct {
	Name     string
	Consumer Consumer
	Sink     sink.Sink

	// Match says which records the sink wants. It must depend on the record
	// alone. Gap records are delivered whatever it says. Nil: all.
	Match func(*event.Record) bool

	// Permit is asked before each attempt whether it may be made and, unless it
	// may take forever, until when it must be over. Once it says no, nothing is
	// sent any more, and Run waits for the end of its context. Nil: always.
	Fence sink.Fence

	// Parked is where records wait whose stream the destination refuses while it
	// accepts others. It outlives the delivery, which ends although there are some.
	// Nil: memory; DropParked says how many are left.
	Parked *parked.Store

	// OnRejected is called with the first reason of each batch of which the
	// destination refused records for good. Nil: it is only counted and logged.
	OnRejected func(reason string)

	sink.Limits

	Logger  *slog.Logger
	Metrics *Metrics
}

// DefaultWindowBytes is some 100,000 records.
const DefaultWindowBytes = 64 << 20

// windowRecords bounds the same in records, those counted that have been settled
// behind the oldest that has not: with streams of equal rate that is half of them.
// Each takes some 70 bytes of memory, here and in the journal.
const windowRecords = 100_000

// flightBytes bounds the batches in flight, beyond one: with few streams they are
// large, and each is copied and compressed on its way.
const flightBytes = 1 << 20

func setDefaults(l *sink.Limits) {
	def := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	def(&l.BatchBytes, 512<<10)
	def(&l.Concurrency, 1)
	def(&l.WindowBytes, DefaultWindowBytes)
	if l.Size == nil {
		l.Size = func(b *sink.Batch) int { return len(b.Data) }
	}
	if l.MinBackoff == 0 {
		l.MinBackoff = 500 * time.Millisecond
	}
	if l.MaxBackoff == 0 {
		l.MaxBackoff = 30 * time.Second
	}
}

// Delivery takes records from a journal to one sink, in batches of one stream,
// each until it is accepted, oldest first. The journal's cursor follows what has
// been accepted without a gap. It never gives up on a batch that may still be
// accepted.
type Delivery struct {
	Options
	ownParked bool // Parked is a store in memory that ends with the delivery
	metrics   sinkMetrics

	draining context.Context
	drain    context.CancelFunc

	mu    sync.Mutex // guards state
	state State
}

// New returns a delivery that begins when Run is called.
func New(o Options) *Delivery {
	setDefaults(&o.Limits)
	if o.Match == nil {
		o.Match = func(*event.Record) bool { return true }
	}
	o.Logger = o.Logger.With("sink", o.Name)
	own := false
	if o.Parked == nil {
		o.Parked = parked.NewMemory(0)
		own = true
	}
	d := &Delivery{Options: o, ownParked: own, metrics: o.Metrics.forSink(o.Name)}
	d.draining, d.drain = context.WithCancel(context.Background())
	return d
}

// Drain lets Run return as soon as everything in the journal has been
// delivered.
func (d *Delivery) Drain() { d.drain() }

// Run delivers until ctx ends, or until nothing is left after Drain. What was
// not accepted by then stays with the journal. An error means that delivery to
// this sink cannot go on. It is called once.
func (d *Delivery) Run(ctx context.Context) error {
	var started sync.WaitGroup
	defer started.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// Reading ends when nothing more is worth waiting for. What the journal has
	// is still returned.
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	defer context.AfterFunc(d.draining, stopReading)()

	l := newLoop(ctx, d, &started)
	started.Go(func() { l.read(reading) })
	if err := l.run(); err != nil {
		return fmt.Errorf("sink %s: %w", d.Name, err)
	}
	return nil
}
