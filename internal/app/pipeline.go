package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/router"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/file"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

// pipeline is the way of a record from the intake to the sinks:
//
//	take ─► intake ─► journal ─┬─► delivery ─► sink
//	                           └─► delivery ─► sink
type pipeline struct {
	intake     *router.Intake
	journal    *journal.Journal
	sinks      []sink.Sink
	deliveries []*sink.Delivery
	durable    bool // what is in the journal outlives the process
	log        *slog.Logger
}

// newPipeline builds the pipeline of a configuration. Nothing is delivered until
// run is called.
func newPipeline(o Options, reg prometheus.Registerer) (*pipeline, error) {
	c := o.Config
	p := &pipeline{durable: c.Journal.Dir != "", log: o.Log}
	p.intake = router.NewIntake(router.IntakeOptions{
		Drop:       c.Drop,
		Redact:     c.Redact,
		MaxStreams: c.MaxStreams,
		Logger:     o.Log.With("component", "intake"),
		Registerer: reg,
	})
	metrics := sink.NewMetrics(reg)
	var err error
	if p.journal, err = openJournal(o, reg, metrics); err != nil {
		return nil, err
	}
	for _, s := range c.Sinks {
		consumer, err := p.journal.Consumer(s.Name)
		if err != nil {
			return nil, err
		}
		to, limits, err := newSink(s, o)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", s.Name, err)
		}
		p.sinks = append(p.sinks, to)
		p.deliveries = append(p.deliveries, sink.NewDelivery(sink.Options{
			Name:     s.Name,
			Consumer: consumer,
			Sink:     to,
			Match:    s.Match.Match,
			Limits:   limits,
			Logger:   o.Log.With("component", "sink"),
			Metrics:  metrics,
		}))
	}
	return p, nil
}

// openJournal opens the journal in its directory, or in memory where there is
// none.
func openJournal(o Options, reg prometheus.Registerer, metrics *sink.Metrics) (*journal.Journal, error) {
	c := o.Config
	options := journal.Options{
		MaxBytes:   int64(c.Journal.MaxBytes),
		Namespace:  o.OwnNamespace,
		Dropped:    func(name string, cause event.Cause, n int) { metrics.Dropped(name, string(cause), n) },
		Logger:     o.Log.With("component", "journal"),
		Registerer: reg,
	}
	for _, s := range c.Sinks {
		options.Consumers = append(options.Consumers, journal.ConsumerOptions{Name: s.Name, WhenFull: s.WhenFull, Start: s.Start})
	}
	if c.Journal.Dir == "" {
		return journal.NewMemory(options)
	}
	return journal.Open(c.Journal.Dir, options)
}

// newSink makes a sink of its kind. Nothing is connected to.
func newSink(s config.Sink, o Options) (sink.Sink, sink.Limits, error) {
	log := o.Log.With("component", "sink")
	switch {
	case s.File != nil:
		to, err := file.New(*s.File, log.With("sink", s.Name))
		return to, file.Limits(), err
	case s.Loki != nil:
		if o.Config.Cluster == "" {
			log.Warn("the Loki sink has no label cluster (key cluster): streams of two clusters with the same labels would get in each other's way", "sink", s.Name)
		}
		letters := ""
		if dir := o.Config.Journal.Dir; dir != "" {
			letters = filepath.Join(dir, "dead-letters")
		}
		to, err := loki.New(*s.Loki, loki.Options{Name: s.Name, Cluster: o.Config.Cluster, DeadLetterDir: letters, Logger: log})
		if err != nil {
			return nil, sink.Limits{}, err
		}
		return to, to.Limits(), nil
	default:
		return stdout.New(*s.Stdout, o.Stdout), stdout.Limits(), nil
	}
}

// take puts what a source has seen through the intake and into the journal. It
// returns once the journal keeps it, and blocks while the journal is full.
func (p *pipeline) take(ctx context.Context, records []event.Record) error {
	return p.journal.Append(ctx, p.intake.Take(records))
}

// run delivers what feed takes in, until feed returns, which it does soon after
// its context ends: when ctx does, or when a sink cannot go on. Then what is
// left is delivered, for no longer than drain says once ctx has ended.
func (p *pipeline) run(ctx context.Context, drain time.Duration, feed func(context.Context) error) error {
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	// The end of ctx is an order to finish, not to let everything fall.
	sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(drain, func() { stopSending(fmt.Errorf("%v after the end was asked for (drain_timeout)", drain)) })
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
		feedErr = nil // it ended because it was told to
	}
	for _, d := range p.deliveries {
		d.Drain()
	}
	err := errors.Join(feedErr, deliveries.Wait(), p.left(context.Cause(sending)))
	for _, s := range p.sinks {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, p.journal.Close())
}

// left says what was not delivered and why; nil if that is nothing, or not lost.
func (p *pipeline) left(why error) error {
	var left []string
	stats := p.journal.Stats()
	for _, d := range p.deliveries {
		if n := stats.Consumers[d.Name].Behind; n > 0 {
			left = append(left, fmt.Sprintf("%d records for sink %s", n, d.Name))
		}
	}
	if left == nil {
		return nil
	}
	if p.durable {
		p.log.Info("what is left is kept in the journal", "left", strings.Join(left, ", "))
		return nil
	}
	not := "not delivered: " + strings.Join(left, ", ")
	if why != nil && !errors.Is(why, context.Canceled) {
		return fmt.Errorf("stopped %w; %s", why, not)
	}
	return errors.New(not)
}
