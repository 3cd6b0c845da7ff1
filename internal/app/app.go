// Package app wires the program together and stops it in order: first the watch, then the sinks
// after a drain, last the Lease.
package app

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/enrich"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/mask"
	"github.com/hindsight-events/hindsight/internal/telemetry"
	"github.com/hindsight-events/hindsight/lease"
	"github.com/hindsight-events/hindsight/watch"
)

// Options of Run and Replay.
type Options struct {
	Config *config.Config
	Stdout io.Writer
	Log    *slog.Logger

	// The following are for Run.

	File         *ConfigFile // watched for changes of Config; nil: no reloads
	Kubernetes   *rest.Config
	OwnNamespace string // of the canary Event and of gap records
	Version      string
	Profile      bool // serve profiles
	NewLog       func(*config.Config) *slog.Logger
}

// Run watches and delivers until ctx ends, and then drains the sinks for at most the drain
// timeout. With leader election it first waits to become leader, and returns an error that is
// lease.ErrLost after it has lost the Lease. Any other error has the cause of a failure or the
// number of undelivered records.
func Run(ctx context.Context, o Options) (err error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p := &process{Options: o, watchMetrics: watch.NewMetrics(reg), enrichMetrics: enrich.NewMetrics(reg), reloader: newReloader(reg)}
	if p.client, err = watch.NewClient(o.Kubernetes); err != nil {
		return err
	}
	if o.Config.LeaderElection.Enabled {
		if p.lease, err = newLease(o, reg); err != nil {
			return err
		}
	}
	if p.shared, err = openSharedState(o, reg); err != nil {
		return err
	}

	var background errgroup.Group
	defer background.Wait()
	backgroundCtx, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	if o.Config.Listen != "" {
		server, err := telemetry.Listen(o.Config.Listen, telemetry.Options{
			Metrics: prometheus.Gatherers{reg, prometheus.GathererFunc(p.gather)},
			Live:    p.live, Ready: p.ready, Profile: o.Profile, Log: o.Log,
		})
		if err != nil {
			return err
		}
		o.Log.Info("serving metrics and probes", "address", server.Addr())
		background.Go(func() error { return server.Run(backgroundCtx) })
	}
	if o.File != nil {
		background.Go(func() error { p.reloader.follow(backgroundCtx, *o.File, o.Config, o.Log); return nil })
	}

	background.Go(func() error { unmapAfterStart(backgroundCtx, o.Log); return nil })

	o.Log.Info("hindsight started", "version", o.Version, "server", mask.URL(o.Kubernetes.Host),
		"namespaces", o.Config.Source.Namespaces, "sinks", sinkNames(o.Config))
	started := time.Now()
	if p.lease != nil {
		acquired := waitWithLittleMemory()
		defer acquired()
		err = p.lease.Run(ctx, func(ctx context.Context, found lease.Checkpoint) error {
			acquired()
			return p.lead(ctx, found)
		})
	} else {
		err = p.lead(ctx, lease.Checkpoint{})
	}
	if closeErr := p.shared.journal.Close(); err == nil {
		err = closeErr
	}
	p.Log.Info("hindsight stopped", "after", time.Since(started).Round(time.Second))
	return err
}

// newLease returns a candidate with the name of the pod or the host.
func newLease(o Options, reg prometheus.Registerer) (*lease.Lease, error) {
	c := o.Config.LeaderElection
	name := os.Getenv("POD_NAME")
	if name == "" {
		name, _ = os.Hostname()
	}
	namespace := c.Namespace
	if namespace == "" {
		namespace = o.OwnNamespace
	}
	return lease.New(lease.Options{
		Kubernetes: o.Kubernetes,
		Namespace:  namespace,
		Name:       c.Name,
		// A restarted container of the same pod is another candidate.
		Identity:      name + "_" + uuid.NewString(),
		Duration:      time.Duration(c.LeaseDuration),
		RenewDeadline: time.Duration(c.RenewDeadline),
		RetryPeriod:   time.Duration(c.RetryPeriod),

		CheckpointInterval: time.Duration(c.CheckpointInterval),

		Logger:     o.Log.With("component", "lease"),
		Registerer: reg,
	})
}
