package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/router"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/file"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/stdout"
)

// store is what outlives a pipeline: another one can be built on it.
type store struct {
	intake  *router.Intake
	journal *journal.Journal
	metrics *delivery.Metrics
	parked  map[string]*parked.Store // by sink
}

// openStore opens the journal in its directory, or in memory where there is
// none. reg may be nil.
func openStore(o Options, reg prometheus.Registerer) (*store, error) {
	c := o.Config
	s := &store{
		intake: router.NewIntake(router.IntakeOptions{
			Logger:     o.Log.With("component", "intake"),
			Registerer: reg,
		}),
		metrics: delivery.NewMetrics(reg),
	}
	options := journal.Options{
		MaxBytes:   int64(c.Journal.MaxBytes),
		Consumers:  consumers(c),
		Namespace:  o.OwnNamespace,
		OnDrop:     func(name string, cause event.Cause, n int) { s.metrics.CountDropped(name, string(cause), n) },
		Logger:     o.Log.With("component", "journal"),
		Registerer: reg,
	}
	var err error
	if c.Journal.Dir == "" {
		s.journal, err = journal.NewMemory(options)
	} else {
		s.journal, err = journal.Open(c.Journal.Dir, options)
	}
	return s, err
}

// consumers are the sinks as the journal knows them.
func consumers(c *config.Config) []journal.ConsumerOptions {
	all := make([]journal.ConsumerOptions, 0, len(c.Sinks))
	for _, s := range c.Sinks {
		all = append(all, journal.ConsumerOptions{Name: s.Name, WhenFull: s.WhenFull, Start: s.Start})
	}
	return all
}

// pipeline is the way of a record from the intake to the sinks:
//
//	take ─► intake ─► journal ─┬─► delivery ─► sink
//	                           └─► delivery ─► sink
type pipeline struct {
	*store
	made
	deliveries []*delivery.Delivery
	kept       bool
	taken      func(*event.Record)
	stopped    error // why run did not deliver everything
	log        *slog.Logger
}

// pipelineOptions are what leading a cluster adds to a configuration.
type pipelineOptions struct {
	// seen returns what a sink has been given before, if anything; nil: nothing.
	seen func(sink string) func(*event.Record) bool
	// taken is told of each record that is taken in; nil: nobody.
	taken func(*event.Record)
	// permit is asked before anything is sent; see delivery.Options.
	permit func() (until time.Time, ok bool)
	// refused is called with a reason when a sink refuses records for good; nil:
	// it is counted and logged all the same.
	refused func(sink, reason string)
	// kept is whether what is not delivered is not lost with the process.
	kept bool
	// last is whether no other pipeline follows on the store: parked records are
	// tried some more times before run returns.
	last bool
}

// made is the sinks of a configuration. Nothing is connected to.
type made struct {
	sinks  []sink.Sink
	limits []sink.Limits
}

func makeSinks(o Options) (m made, err error) {
	for _, s := range o.Config.Sinks {
		to, limits, err := newSink(s, o)
		if err != nil {
			return m, errors.Join(fmt.Errorf("sink %s: %w", s.Name, err), m.close())
		}
		m.sinks, m.limits = append(m.sinks, to), append(m.limits, limits)
	}
	return m, nil
}

// close lets go of the sinks.
func (m made) close() (err error) {
	for _, s := range m.sinks {
		err = errors.Join(err, s.Close())
	}
	return err
}

// labels are those of the sinks that have any.
func (m made) labels(c *config.Config) (all []router.SinkLabels) {
	for i, s := range m.sinks {
		if s, ok := s.(*loki.Sink); ok {
			all = append(all, router.SinkLabels{Sink: c.Sinks[i].Name, Fields: s.Labels()})
		}
	}
	return all
}

// newPipeline builds the pipeline of a configuration and its sinks on a store that
// no other pipeline uses any more. The journal forgets sinks that are gone, so
// whatever else can go wrong has to be tried before. Nothing is delivered until
// run is called.
func newPipeline(o Options, on *store, m made, l pipelineOptions) (*pipeline, error) {
	c := o.Config
	p := &pipeline{store: on, made: m, kept: l.kept, taken: l.taken, log: o.Log}
	if err := p.journal.SetConsumers(consumers(c)); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.intake.SetRules(c.Drop, c.Redact, c.MaxStreams, m.labels(c))
	on.warnParked(c, o)
	for i, s := range c.Sinks {
		consumer, err := p.journal.Consumer(s.Name)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		match := s.Match.Match
		if l.seen != nil {
			if seen := l.seen(s.Name); seen != nil {
				match = func(r *event.Record) bool { return !seen(r) && s.Match.Match(r) }
			}
		}
		var aside *parked.Store
		if !l.last {
			if aside, err = on.parkedOf(c, s, o); err != nil {
				return nil, errors.Join(err, p.close())
			}
		}
		var onRefused func(string)
		if l.refused != nil {
			onRefused = func(reason string) { l.refused(s.Name, reason) }
		}
		p.deliveries = append(p.deliveries, delivery.New(delivery.Options{
			Name:       s.Name,
			Consumer:   consumer,
			Sink:       p.sinks[i],
			Parked:     aside,
			Match:      match,
			Fence:      l.permit,
			OnRejected: onRefused,
			Limits:     window(m.limits[i], s, c.Journal.MaxBytes),
			Logger:     o.Log.With("component", "sink"),
			Metrics:    p.metrics,
		}))
	}
	return p, nil
}

// window bounds what a sink has found and not sent by what the journal holds. A
// journal must not be full of what waits for its batch to fill, and behind the
// oldest of it lies as much that was sent already; and one that drops its oldest
// records keeps those longer that were found.
func window(l sink.Limits, s config.Sink, journalBytes quantity.Size) sink.Limits {
	part := 4
	if s.WhenFull == journal.DropOldest {
		part = 8
	}
	l.WindowBytes = min(cmp.Or(l.WindowBytes, delivery.DefaultWindowBytes), int(journalBytes)/part)
	return l
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
	records = p.intake.Apply(records)
	if p.taken != nil {
		for i := range records {
			p.taken(&records[i])
		}
	}
	return p.journal.Append(ctx, records)
}

// run delivers what feed takes in, until feed returns, which it does soon after
// its context ends: when ctx does, or when a sink cannot go on. Then what is
// left is delivered, for no longer than drain says once ctx has ended; not at
// all if it ended because another replica leads.
func (p *pipeline) run(ctx context.Context, drain time.Duration, feed func(context.Context) error) error {
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopFeeding()
	// The end of ctx is an order to finish, not to let everything fall.
	sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	defer context.AfterFunc(ctx, func() {
		if why := context.Cause(ctx); errors.Is(why, lease.ErrLost) {
			stopSending(why)
			return
		}
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
	err := errors.Join(feedErr, deliveries.Wait())
	if why := context.Cause(sending); why != nil && !errors.Is(why, context.Canceled) {
		p.stopped = why
	}
	return errors.Join(err, p.close())
}

// left says what was not delivered and why; nil if that is nothing, or not lost.
func (p *pipeline) left() error {
	return errors.Join(p.leftInJournal(), p.abandonParked())
}

func (p *pipeline) leftInJournal() error {
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
	if p.kept {
		p.log.Info("what is left is not lost: delivery goes on from there", "left", strings.Join(left, ", "))
		return nil
	}
	not := "not delivered: " + strings.Join(left, ", ")
	if p.stopped != nil {
		return fmt.Errorf("stopped %w; %s", p.stopped, not)
	}
	return errors.New(not)
}
