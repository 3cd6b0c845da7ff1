package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/sink"
)

// pipeline is the path of a record from the intake to the sinks:
//
//	ingest ─► intake ─► journal ─┬─► delivery ─► sink
//	                             └─► delivery ─► sink
type pipeline struct {
	*sharedState
	pipelineOptions
	sinks      sinkSet
	deliveries []*delivery.Delivery
	stopped    error // the reason for which the drain ended early
	log        *slog.Logger
}

// pipelineOptions are the differences between leading and replaying. Functions may be nil.
type pipelineOptions struct {
	// alreadyDelivered returns a filter for records that another leader delivered to a sink; nil:
	// none.
	alreadyDelivered func(sink string) func(*event.Record) bool
	// enrich adds attributes to records before the intake.
	enrich func(context.Context, []event.Record)
	// onRecord is called with each record of the intake.
	onRecord func(*event.Record)
	fence    sink.Fence
	// onRejected is called with the first reason of each batch that has rejected records.
	onRejected func(sink, reason string)
	// durable means that undelivered records are delivered by a later process: from the journal on
	// disk or, by the checkpoint, from the API server.
	durable bool
	// last means that no pipeline follows: run retries parked records a few times before it returns.
	last bool
}

// newPipeline builds a pipeline and hands it the sinks; run closes them. The previous pipeline on
// the shared state must have ended. It is the last step of building a generation: the journal
// deletes the cursors of removed sinks.
func newPipeline(o Options, shared *sharedState, sinks sinkSet, options pipelineOptions) (*pipeline, error) {
	c := o.Config
	p := &pipeline{sharedState: shared, pipelineOptions: options, sinks: sinks, log: o.Log}
	if err := p.journal.SetConsumers(consumers(c)); err != nil {
		return nil, errors.Join(err, sinks.close())
	}
	p.intake.SetRules(c.Drop, c.Redact, c.Levels, c.MaxStreams, sinks.labels())
	p.forgetRemovedSinks(o)
	for _, s := range sinks {
		d, err := p.newDelivery(o, s)
		if err != nil {
			return nil, errors.Join(err, sinks.close())
		}
		p.deliveries = append(p.deliveries, d)
	}
	return p, nil
}

func (p *pipeline) newDelivery(o Options, s openSink) (_ *delivery.Delivery, err error) {
	options := delivery.Options{
		Name:    s.config.Name,
		Sink:    s.Sink,
		Match:   s.config.Match.Match,
		Fence:   p.fence,
		Limits:  s.deliveryLimits(o.Config.Journal.MaxBytes),
		Logger:  o.Log.With("component", "sink"),
		Metrics: p.metrics,
	}
	if options.Consumer, err = p.journal.Consumer(s.config.Name); err != nil {
		return nil, err
	}
	if p.alreadyDelivered != nil {
		if skip := p.alreadyDelivered(s.config.Name); skip != nil {
			options.Match = func(r *event.Record) bool { return !skip(r) && s.config.Match.Match(r) }
		}
	}
	if !p.last {
		if options.Parked, err = p.parkedStore(s.config, o); err != nil {
			return nil, err
		}
	}
	if p.onRejected != nil {
		options.OnRejected = func(reason string) { p.onRejected(s.config.Name, reason) }
	}
	return delivery.New(options), nil
}

// ingest appends records of a source to the journal, through the intake. It returns once the
// journal has stored them, and blocks while the journal is full.
func (p *pipeline) ingest(ctx context.Context, records []event.Record) error {
	if p.pipelineOptions.enrich != nil {
		p.pipelineOptions.enrich(ctx, records)
	}
	records = p.intake.Apply(records)
	if p.onRecord != nil {
		for i := range records {
			p.onRecord(&records[i])
		}
	}
	return p.journal.Append(ctx, records)
}

// run delivers the records that feed ingests. It cancels feed when ctx ends or a sink fails. Once
// feed has returned, run drains the sinks, for at most the given time after the end of ctx, and not
// if ctx ended because the Lease was lost.
func (p *pipeline) run(ctx context.Context, drain time.Duration, feed func(context.Context) error) error {
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	// Cancelling ctx starts a drain.
	sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	defer context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); errors.Is(cause, lease.ErrLost) {
			stopSending(cause)
			return
		}
		time.AfterFunc(drain, func() { stopSending(fmt.Errorf("after drain_timeout, %v", drain)) })
	})()

	var deliveries errgroup.Group
	for _, d := range p.deliveries {
		deliveries.Go(func() error {
			err := d.Run(sending)
			if err != nil {
				stopFeeding()
				stopSending(nil)
			}
			return err
		})
	}
	feedErr := feed(feeding)
	if feeding.Err() != nil && errors.Is(feedErr, feeding.Err()) {
		feedErr = nil
	}
	for _, d := range p.deliveries {
		d.Drain()
	}
	err := errors.Join(feedErr, deliveries.Wait())
	if cause := context.Cause(sending); cause != nil && !errors.Is(cause, context.Canceled) {
		p.stopped = cause
	}
	return errors.Join(err, p.sinks.close())
}

// undelivered returns an error with the number of records that were not delivered and are lost.
func (p *pipeline) undelivered() error {
	return errors.Join(p.undeliveredInJournal(), p.dropParked())
}

func (p *pipeline) undeliveredInJournal() error {
	var backlog []string
	stats := p.journal.Stats()
	for _, d := range p.deliveries {
		if n := stats.Consumers[d.Name].Behind; n > 0 {
			backlog = append(backlog, fmt.Sprintf("%d records for sink %s", n, d.Name))
		}
	}
	if backlog == nil {
		return nil
	}
	list := strings.Join(backlog, ", ")
	if p.durable {
		p.log.Info("stopped before all records were delivered; the next start delivers them", "records", list)
		return nil
	}
	if p.stopped != nil {
		return fmt.Errorf("stopped %w; not delivered: %s", p.stopped, list)
	}
	return fmt.Errorf("not delivered: %s", list)
}

// dropParked drops the parked records that would be lost with the process, and returns an error
// with their number.
func (p *pipeline) dropParked() (err error) {
	for _, d := range p.deliveries {
		if n := d.DropParked(); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d parked records were dropped for sink %s; they are in the log", n, d.Name))
		}
	}
	return err
}
