// Package app wires Hindsight together, in a straight line, and stops it in
// order: the watch first, then what was taken in is delivered, then the Lease
// is let go of.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/internal/canary"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/mask"
	"github.com/hindsight-events/hindsight/internal/telemetry"
	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/watch"
)

// Options of Run and Replay.
type Options struct {
	Config *config.Config
	File   *ConfigFile // for Run: where Config is from; nil: nowhere it could change

	Kubernetes   *rest.Config // for Run: where the API server is
	OwnNamespace string       // for Run: where Events of our own belong
	Version      string       // for Run
	Profile      bool         // for Run: whether profiles are served beside the metrics

	Stdout io.Writer
	Log    *slog.Logger
	NewLog func(*config.Config) *slog.Logger // for Run: the log of another configuration
}

// process is a running Hindsight: what outlives a reload of its configuration.
type process struct {
	Options
	store        *store
	client       *rest.RESTClient
	watchMetrics *watch.Metrics
	reloads      *reloads
	lease        *lease.Lease // nil without leader election
	standing     *standing    // nil until it leads

	mu      sync.Mutex  // guards current
	current *generation // what runs now; nil while another replica leads
}

// Run watches and delivers until ctx ends; then it delivers what was taken in,
// for no longer than the drain timeout. With leader election it first waits to
// lead, and returns an error that is lease.ErrLost once it does not lead any
// more. Any other error says what went wrong, or what was left undelivered.
func Run(ctx context.Context, o Options) (err error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p := &process{Options: o, watchMetrics: watch.NewMetrics(reg), reloads: newReloads(reg)}
	if p.client, err = watch.NewClient(o.Kubernetes); err != nil {
		return err
	}
	if o.Config.LeaderElection.Enabled {
		if p.lease, err = p.newLease(reg); err != nil {
			return err
		}
	}
	if p.store, err = openStore(o, reg); err != nil {
		return err
	}

	var helpers errgroup.Group
	defer helpers.Wait()
	helping, stopHelpers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHelpers()
	if o.Config.Listen != "" {
		server, err := telemetry.Listen(o.Config.Listen, telemetry.Options{
			Metrics: prometheus.Gatherers{reg, prometheus.GathererFunc(p.gather)},
			Live:    p.live, Ready: p.ready, Profile: o.Profile, Log: o.Log,
		})
		if err != nil {
			return err
		}
		o.Log.Info("metrics and probes", "address", server.Addr())
		helpers.Go(func() error { return server.Run(helping) })
	}
	if o.File != nil {
		helpers.Go(func() error { p.reloads.follow(helping, *o.File, o.Config, o.Log); return nil })
	}

	o.Log.Info("hindsight starts", "version", o.Version, "server", mask.URL(o.Kubernetes.Host),
		"namespaces", o.Config.Source.Namespaces, "sinks", sinkNames(o.Config))
	started := time.Now()
	if p.lease != nil {
		err = p.lease.Run(ctx, p.lead)
	} else {
		err = p.lead(ctx, lease.Checkpoint{})
	}
	if closeErr := p.store.journal.Close(); err == nil {
		err = closeErr
	}
	p.Log.Info("hindsight ends", "after", time.Since(started).Round(time.Second))
	return err
}

// newLease prepares to campaign, under the name of the pod or of the host.
func (p *process) newLease(reg prometheus.Registerer) (*lease.Lease, error) {
	c := p.Config.LeaderElection
	name := os.Getenv("POD_NAME")
	if name == "" {
		name, _ = os.Hostname()
	}
	namespace := c.Namespace
	if namespace == "" {
		namespace = p.OwnNamespace
	}
	return lease.New(lease.Options{
		Kubernetes: p.Kubernetes,
		Namespace:  namespace,
		Name:       c.Name,
		// A container that is started again in its pod is another candidate.
		Identity:      name + "_" + uuid.NewString(),
		Duration:      time.Duration(c.LeaseDuration),
		RenewDeadline: time.Duration(c.RenewDeadline),
		RetryPeriod:   time.Duration(c.RetryPeriod),
		Logger:        p.Log.With("component", "lease"),
		Registerer:    reg,
	})
}

// lead does the work, from where held says that it was left, with one
// configuration after the other.
func (p *process) lead(ctx context.Context, held lease.Checkpoint) (err error) {
	p.standing = newStanding(p.store.journal, held)
	defer p.setCurrent(nil)
	var g *generation
	select {
	case next := <-p.reloads.next: // changed while another replica led
		g = p.reload(next)
	default:
	}
	for name, behind := range p.standing.removedSinks(p.Config) {
		if behind {
			p.Log.Warn("the Lease holds the position of a sink that is not configured any more and was behind; Events that it had not accepted are not delivered to it",
				"sink", name, "hint", "a renamed sink is a new one: let a sink deliver its backlog before it is removed or renamed")
		}
	}
	for {
		if g == nil {
			if g, err = p.newGeneration(p.Config, p.Log); err != nil {
				return err
			}
		}
		if p.lease != nil {
			p.lease.SetCheckpoint(p.standing.hold)
		}
		next, err := p.run(ctx, g)
		if err != nil {
			return errors.Join(err, g.pipeline.abandonParked())
		}
		if next == nil {
			return g.pipeline.left()
		}
		g = p.reload(next)
	}
}

// reload takes another configuration over and returns what it amounts to; nil if
// it cannot be used.
func (p *process) reload(c *config.Config) *generation {
	log := p.Log
	if p.NewLog != nil {
		log = p.NewLog(c)
	}
	g, err := p.newGeneration(c, log)
	if err != nil {
		p.reloads.refused(p.Log, err)
		return nil
	}
	p.Config, p.Log = c, log
	p.reloads.succeeded()
	p.Log.Info("the configuration was read again", "sinks", sinkNames(c))
	return g
}

// generation is what one configuration amounts to.
type generation struct {
	pipeline *pipeline
	watchers map[string]*watch.Watcher // by namespace
	canary   *canary.Canary            // nil: none
	metrics  *prometheus.Registry      // of what does not outlive it
}

// newGeneration builds what a configuration amounts to. Nothing runs yet. If the
// configuration cannot be used, everything is as before.
func (p *process) newGeneration(c *config.Config, log *slog.Logger) (*generation, error) {
	o := p.Options
	o.Config, o.Log = c, log
	m, err := makeSinks(o)
	if err != nil {
		return nil, err
	}
	g := &generation{watchers: make(map[string]*watch.Watcher), metrics: prometheus.NewRegistry()}
	if g.canary, err = p.newCanary(o, m, g.metrics); err != nil {
		return nil, errors.Join(err, m.close())
	}
	options := pipelineOptions{seen: p.standing.seen, kept: c.Journal.Dir != "" || p.lease != nil}
	if g.canary != nil {
		options.taken = g.canary.Observe
	}
	if p.lease != nil {
		options.permit = p.lease.Valid
	}
	p.standing.setSinks(c)
	if g.pipeline, err = newPipeline(o, p.store, m, options); err != nil {
		return nil, err
	}
	for _, namespace := range sources(c) {
		from := p.standing.from(namespace)
		g.watchers[namespace] = watch.New(watch.Options{
			Client:        p.client,
			Namespace:     namespace,
			Start:         from.start,
			SinkPositions: from.behind,
			StartReason:   from.why,
			Handle:        g.pipeline.take,
			BatchInterval: groupsApart,
			KnownGaps:     p.standing.gaps(),
			OnGap:         p.standing.declare,
			OwnNamespace:  p.OwnNamespace,
			SortDir:       c.Journal.Dir,
			SortMaxBytes:  int64(c.Journal.MaxBytes),
			Logger:        log.With("component", "watch"),
			Metrics:       p.watchMetrics,
		})
	}
	return g, nil
}

// groupsApart bounds how often the journal is synced for a few records: at 500
// Events a second that was a third of all CPU, and 500 writes to the disk.
const groupsApart = 10 * time.Millisecond

// run watches and delivers until ctx ends, or until there is another
// configuration, which it returns.
func (p *process) run(ctx context.Context, g *generation) (next *config.Config, err error) {
	p.setCurrent(g)
	running, end := context.WithCancel(ctx)
	defer end()
	var waiting errgroup.Group
	waiting.Go(func() error {
		select {
		case next = <-p.reloads.next:
			end()
		case <-running.Done():
		}
		return nil
	})
	err = g.pipeline.run(running, time.Duration(p.Config.DrainTimeout), func(ctx context.Context) error {
		sources, ctx := errgroup.WithContext(ctx)
		for _, w := range g.watchers {
			sources.Go(func() error { return w.Run(ctx) })
		}
		if g.canary != nil {
			sources.Go(func() error { return g.canary.Run(ctx) })
		}
		err := sources.Wait()
		p.Log.Info("watching has ended, delivering what is left")
		return err
	})
	end()
	waiting.Wait()
	if ctx.Err() != nil {
		next = nil
	}
	return next, err
}

func (p *process) setCurrent(g *generation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = g
}

// gather returns the metrics of what runs now.
func (p *process) gather() ([]*dto.MetricFamily, error) {
	p.mu.Lock()
	g := p.current
	p.mu.Unlock()
	if g == nil {
		return nil, nil
	}
	return g.metrics.Gather()
}

// sources are the namespaces that are watched by themselves; empty stands for
// all with one watch.
func sources(c *config.Config) []string {
	if len(c.Source.Namespaces) == 0 {
		return []string{""}
	}
	return c.Source.Namespaces
}

func sinkNames(c *config.Config) []string {
	var names []string
	for _, s := range c.Sinks {
		names = append(names, s.Name)
	}
	return names
}

const (
	// stillAfter is how long a loop may go without turning. Waiting counts as
	// turning; only a defect of ours stops it, and a restart helps.
	stillAfter = 10 * time.Minute
	// fullAfter is how long the journal must take nothing before that is said.
	// While a long list is taken in, it may be full for moments.
	fullAfter = 15 * time.Second
)

// live says which loop has stopped turning.
func (p *process) live() (wrong []string) {
	p.mu.Lock()
	g := p.current
	p.mu.Unlock()
	if g == nil {
		return nil
	}
	for namespace, w := range g.watchers {
		if still := time.Since(w.LastHeartbeat()); still > stillAfter {
			wrong = append(wrong, fmt.Sprintf("%s: the loop has not turned for %s", source(namespace), still.Round(time.Second)))
		}
	}
	return wrong
}

// ready says what keeps Events from arriving. Who waits to lead is ready.
func (p *process) ready() (wrong []string) {
	if p.lease != nil {
		if err := p.lease.Ready(); err != nil {
			wrong = append(wrong, fmt.Sprintf("lease: %v", err))
		}
	}
	p.mu.Lock()
	g := p.current
	p.mu.Unlock()
	if g == nil {
		return wrong
	}
	for namespace, w := range g.watchers {
		if err := w.Ready(); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", source(namespace), err))
		}
	}
	for _, d := range g.pipeline.deliveries {
		if err := d.Ready(); err != nil {
			wrong = append(wrong, fmt.Sprintf("sink %s: %v", d.Name, err))
		}
	}
	if j := p.store.journal.Stats(); !j.BlockedSince.IsZero() && time.Since(j.BlockedSince) > fullAfter {
		wrong = append(wrong, fmt.Sprintf("journal: nothing can be appended since %s: %s", j.BlockedSince.UTC().Format(time.RFC3339), j.BlockedReason))
	}
	return wrong
}

// source names what a watcher watches.
func source(namespace string) string {
	if namespace == "" {
		return "watch of all namespaces"
	}
	return "watch of namespace " + namespace
}
