// Package app wires Hindsight together, in a straight line, and stops it in
// order: the watch first, then what was taken in is delivered.
package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/telemetry"
	"github.com/hindsight-events/hindsight/watch"
)

// Options of Run and Replay.
type Options struct {
	Config *config.Config

	Kubernetes   *rest.Config // for Run: where the API server is
	OwnNamespace string       // for Run: where Events of our own belong
	Version      string       // for Run

	Stdout io.Writer
	Log    *slog.Logger
}

// Run watches and delivers until ctx ends; then it delivers what was taken in,
// for no longer than the drain timeout. An error says what went wrong, or what
// was left undelivered.
func Run(ctx context.Context, o Options) error {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	client, err := watch.NewClient(o.Kubernetes)
	if err != nil {
		return err
	}
	p, err := newPipeline(o, reg)
	if err != nil {
		return err
	}
	watchers := newWatchers(o, client, p, watch.NewMetrics(reg))

	var helpers errgroup.Group
	defer helpers.Wait() // for the server to have ended
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	if o.Config.Listen != "" {
		h := &health{watchers: watchers, pipeline: p}
		server, err := telemetry.Listen(o.Config.Listen, reg, h.live, h.ready, o.Log)
		if err != nil {
			return err
		}
		o.Log.Info("metrics and probes", "address", server.Addr())
		helpers.Go(func() error { return server.Run(serving) })
	}

	o.Log.Info("hindsight starts", "version", o.Version, "server", o.Kubernetes.Host,
		"namespaces", o.Config.Source.Namespaces, "sinks", sinkNames(o.Config))
	started := time.Now()
	err = p.run(ctx, time.Duration(o.Config.DrainTimeout), func(ctx context.Context) error {
		sources, ctx := errgroup.WithContext(ctx)
		for _, w := range watchers {
			sources.Go(func() error { return w.Run(ctx) })
		}
		err := sources.Wait()
		o.Log.Info("watching has ended, delivering what is left")
		return err
	})
	o.Log.Info("hindsight ends", "after", time.Since(started).Round(time.Second))
	return err
}

// newWatchers returns a watcher for all namespaces, or one for each that is
// listed.
func newWatchers(o Options, client *rest.RESTClient, p *pipeline, metrics *watch.Metrics) map[string]*watch.Watcher {
	namespaces := o.Config.Source.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	watchers := make(map[string]*watch.Watcher, len(namespaces))
	for _, namespace := range namespaces {
		watchers[namespace] = watch.New(watch.Options{
			Client:       client,
			Namespace:    namespace,
			Start:        p.journal.Tail(namespace),
			Out:          p.take,
			OwnNamespace: o.OwnNamespace,
			SpoolDir:     o.Config.Journal.Dir,
			SpoolMax:     int64(o.Config.Journal.MaxBytes),
			Logger:       o.Log.With("component", "watch"),
			Metrics:      metrics,
		})
	}
	return watchers
}

func sinkNames(c *config.Config) []string {
	var names []string
	for _, s := range c.Sinks {
		names = append(names, s.Name)
	}
	return names
}

// health answers the probes.
type health struct {
	watchers map[string]*watch.Watcher // by namespace
	pipeline *pipeline
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
func (h *health) live() (wrong []string) {
	for namespace, w := range h.watchers {
		if still := time.Since(w.LastTurn()); still > stillAfter {
			wrong = append(wrong, fmt.Sprintf("%s: the loop has not turned for %s", source(namespace), still.Round(time.Second)))
		}
	}
	return wrong
}

// ready says what keeps Events from arriving.
func (h *health) ready() (wrong []string) {
	for namespace, w := range h.watchers {
		if err := w.Ready(); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", source(namespace), err))
		}
	}
	for _, d := range h.pipeline.deliveries {
		if err := d.Ready(); err != nil {
			wrong = append(wrong, fmt.Sprintf("sink %s: %v", d.Name, err))
		}
	}
	if j := h.pipeline.journal.Stats(); !j.BlockedSince.IsZero() && time.Since(j.BlockedSince) > fullAfter {
		wrong = append(wrong, fmt.Sprintf("journal: nothing can be appended since %s: %s", j.BlockedSince.UTC().Format(time.RFC3339), j.BlockedWhy))
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
