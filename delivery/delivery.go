// Package delivery moves records from the journal to a sink: it sends them in batches of
// one stream, retries failed batches, and acknowledges completed ones. Records of a stream
// that the destination refuses, while it accepts others, are parked in a store beside the
// journal and retried from there.
package delivery

import (
	"cmp"
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

	// Match reports whether the sink wants a record. It must depend on the record alone.
	// Gap records are always delivered. Nil: all records.
	Match func(*event.Record) bool

	// Fence is checked before each request. Once it is closed, nothing is sent any more,
	// and Run waits for the end of its context. Nil: always open.
	Fence sink.Fence

	// Parked stores the records of streams that the destination refuses while it accepts
	// others. It outlives the delivery, which may leave records in it. Nil: a store in
	// memory; DropParked reports the records that are left.
	Parked *parked.Store

	// OnRejected is called with the first reason for each batch of which the
	// destination rejected records. Rejections are counted and logged anyway. May be nil.
	OnRejected func(reason string)

	sink.Limits

	Logger  *slog.Logger
	Metrics *Metrics
}

// DefaultWindowBytes is about 100,000 records.
const DefaultWindowBytes = 64 << 20

// windowRecords bounds the records of the window, including completed ones behind the
// oldest incomplete one: with streams of equal rate, these are half of them. Each takes
// some 80 bytes of memory, here and in the journal.
const windowRecords = 100_000

func setDefaults(l *sink.Limits) {
	l.BatchBytes = cmp.Or(l.BatchBytes, 512<<10)
	l.Concurrency = cmp.Or(l.Concurrency, 1)
	l.WindowBytes = cmp.Or(l.WindowBytes, DefaultWindowBytes)
	l.NormalBatchWait = max(l.NormalBatchWait, l.BatchWait)
	l.MinBackoff = cmp.Or(l.MinBackoff, 500*time.Millisecond)
	l.MaxBackoff = cmp.Or(l.MaxBackoff, 30*time.Second)
	if l.Size == nil {
		l.Size = func(b *sink.Batch) int { return len(b.Data) }
	}
}

// Delivery moves records from the journal to one sink, in batches of one stream, oldest
// first. It acknowledges records in the order of the journal, and retries a batch until
// the destination accepts or rejects it.
type Delivery struct {
	Options
	ownStore bool // Parked is a store in memory that ends with the delivery
	metrics  sinkMetrics

	draining context.Context
	drain    context.CancelFunc

	mu    sync.Mutex // guards state
	state State
}

// New returns a delivery. Run starts it.
func New(o Options) *Delivery {
	setDefaults(&o.Limits)
	if o.Match == nil {
		o.Match = func(*event.Record) bool { return true }
	}
	o.Logger = o.Logger.With("sink", o.Name)
	ownStore := o.Parked == nil
	if ownStore {
		o.Parked = parked.NewMemory(0)
	}
	d := &Delivery{Options: o, ownStore: ownStore, metrics: o.Metrics.forSink(o.Name)}
	d.draining, d.drain = context.WithCancel(context.Background())
	return d
}

// Drain makes Run return once it has delivered all records of the journal.
func (d *Delivery) Drain() { d.drain() }

// Run delivers until ctx ends, or until no records are left after Drain. The journal
// keeps the records that were not accepted. After an error, the sink cannot be delivered
// to any more. Run is called once.
func (d *Delivery) Run(ctx context.Context) error {
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// After Drain, fetch returns the records of the journal and does not wait for more.
	waiting, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	defer context.AfterFunc(d.draining, stopWaiting)()

	l := newLoop(ctx, d, &goroutines)
	goroutines.Go(func() { l.fetch(waiting) })
	if err := l.run(); err != nil {
		return fmt.Errorf("sink %s: %w", d.Name, err)
	}
	return nil
}
