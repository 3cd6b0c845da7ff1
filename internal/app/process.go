package app

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/enrich"
	"github.com/hindsight-events/hindsight/internal/canary"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/resume"
	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/watch"
)

// process is a running Hindsight across reloads. Config and Log belong to the current
// generation.
type process struct {
	Options
	client        *rest.RESTClient
	shared        *sharedState
	watchMetrics  *watch.Metrics
	enrichMetrics *enrich.Metrics
	enrichment    atomic.Pointer[enrichment] // nil if nothing is enriched
	reloader      *reloader
	lease         *lease.Lease               // nil without leader election
	resume        *resume.Tracker            // nil before this replica leads
	current       atomic.Pointer[generation] // nil while another replica leads
}

// lead watches and delivers, one generation after the other, from the checkpoint found in the
// Lease.
func (p *process) lead(ctx context.Context, found lease.Checkpoint) (err error) {
	p.resume = resume.New(p.shared.journal, found)
	defer p.stopEnrichment()
	defer p.current.Store(nil)
	var g *generation
	select {
	case c := <-p.reloader.changed: // while another replica was the leader
		g = p.reload(c)
	default:
	}
	for _, name := range p.resume.RemovedWithBacklog(consumers(p.Config)) {
		p.Log.Warn("a sink of the checkpoint is not configured any more; Events that it had not accepted are not delivered",
			"sink", name, "hint", "a renamed sink is a new sink: let a sink deliver its backlog before you remove or rename it")
	}
	for {
		if g == nil {
			if g, err = p.newGeneration(p.Options); err != nil {
				return err
			}
		}
		if p.lease != nil {
			p.lease.SetCheckpoint(p.resume.Snapshot)
		}
		if err := p.setEnrichment(ctx, p.Config); err != nil {
			return err
		}
		changed, err := p.run(ctx, g)
		if err != nil {
			return errors.Join(err, g.pipeline.dropParked())
		}
		if changed == nil {
			return g.pipeline.undelivered()
		}
		g = p.reload(changed)
	}
}

// reload returns the generation of a changed configuration; nil if it cannot be used.
func (p *process) reload(c *config.Config) *generation {
	o := p.Options
	o.Config = c
	if p.NewLog != nil {
		o.Log = p.NewLog(c)
	}
	g, err := p.newGeneration(o)
	if err != nil {
		p.reloader.failed(p.Log, err)
		return nil
	}
	p.Options = o
	p.reloader.succeeded()
	p.Log.Info("configuration reloaded", "sinks", sinkNames(c))
	return g
}

// generation is everything that is built from one configuration and replaced by a reload.
type generation struct {
	pipeline *pipeline
	watchers map[string]*watch.Watcher // by namespace
	canary   *canary.Canary            // nil if disabled
	metrics  *prometheus.Registry      // those that end with the generation
}

// batchInterval bounds how often the journal is synced for few records. Without it, syncs took a
// third of all CPU at 500 Events a second, and 500 writes to the disk.
const batchInterval = 10 * time.Millisecond

// newGeneration builds a generation without starting it. After an error, the process is as before.
func (p *process) newGeneration(o Options) (*generation, error) {
	c := o.Config
	sinks, err := openSinks(o)
	if err != nil {
		return nil, err
	}
	g := &generation{watchers: make(map[string]*watch.Watcher), metrics: prometheus.NewRegistry()}
	if g.canary, err = newCanary(o, p.client, sinks, g.metrics); err != nil {
		return nil, errors.Join(err, sinks.close())
	}
	options := pipelineOptions{alreadyDelivered: p.resume.AlreadyDelivered, durable: c.Journal.Dir != "" || p.lease != nil, enrich: p.enrich}
	if g.canary != nil {
		options.onRecord = g.canary.Observe
	}
	if p.lease != nil {
		options.fence = p.lease.Valid
	}
	p.resume.Configure(consumers(c), sources(c))
	if g.pipeline, err = newPipeline(o, p.shared, sinks, options); err != nil {
		return nil, err
	}
	for _, namespace := range sources(c) {
		point := p.resume.Point(namespace)
		g.watchers[namespace] = watch.New(watch.Options{
			Client:        p.client,
			Namespace:     namespace,
			Start:         point.Start,
			SinkPositions: point.Sinks,
			StartReason:   point.Reason,
			Handle:        g.pipeline.ingest,
			BatchInterval: batchInterval,
			KnownGaps:     p.resume.Gaps(),
			OnGap:         p.resume.RecordGap,
			OwnNamespace:  o.OwnNamespace,
			SortDir:       c.Journal.Dir,
			SortMaxBytes:  int64(c.Journal.MaxBytes),
			Logger:        o.Log.With("component", "watch"),
			Metrics:       p.watchMetrics,
		})
	}
	return g, nil
}

// run watches and delivers until ctx ends or the configuration changes. It returns the changed
// configuration.
func (p *process) run(ctx context.Context, g *generation) (changed *config.Config, err error) {
	p.current.Store(g)
	running, stop := context.WithCancel(ctx)
	defer stop()
	var reloads errgroup.Group
	reloads.Go(func() error {
		select {
		case changed = <-p.reloader.changed:
			stop()
		case <-running.Done():
		}
		return nil
	})
	err = g.pipeline.run(running, time.Duration(p.Config.DrainTimeout), func(ctx context.Context) error {
		p.fillEnrichment(ctx)
		group, ctx := errgroup.WithContext(ctx)
		for _, w := range g.watchers {
			group.Go(func() error { return w.Run(ctx) })
		}
		if g.canary != nil {
			group.Go(func() error { return g.canary.Run(ctx) })
		}
		err := group.Wait()
		p.Log.Info("watch stopped, draining the sinks")
		return err
	})
	stop()
	_ = reloads.Wait()
	if ctx.Err() != nil {
		changed = nil
	}
	return changed, err
}

// sources are the namespaces that have their own watch; an empty name is all namespaces.
func sources(c *config.Config) []string {
	if len(c.Source.Namespaces) == 0 {
		return []string{""}
	}
	return c.Source.Namespaces
}
