// Package canary checks that Events arrive, end to end. Every minute it writes an Event of its own,
// which must come back through the watch and, if a Loki can be queried, be found there. Two gauges
// show the latency of the last Event, or the age of one that is overdue.
//
// It needs get, create and patch on events in Hindsight's own namespace, and runs only on the
// leader.
package canary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

// Reason of the canary Event.
const Reason = "HindsightCanary"

// Name of the canary Event. All replicas use the same name, so that there is one Event, whose
// count continues after a failover.
const Name = "hindsight-canary"

const (
	writeInterval   = time.Minute
	overdueAfter    = 2 * time.Minute // a state that takes longer is logged
	overdueInterval = 10 * time.Second
)

// Options of New.
type Options struct {
	Client    *rest.RESTClient // for core/v1
	Namespace string           // Hindsight's own, in which the Event is written
	Pod       string           // Hindsight's own pod, the involved object; empty: the namespace

	Loki *Loki // nil: only the watch is checked

	Logger     *slog.Logger          // nil: no logs
	Registerer prometheus.Registerer // nil: no metrics
}

// Canary writes the canary Event and follows its states. It is made by New.
type Canary struct {
	o     Options
	log   *slog.Logger
	watch *probe
	loki  *probe // nil: Loki is not queried
	event eventState
}

// New returns a Canary. It sends no request.
func New(o Options) (*Canary, error) {
	if o.Namespace == "" {
		return nil, errors.New("canary: the namespace for the Event is missing: set POD_NAMESPACE")
	}
	c := &Canary{o: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}
	c.watch = newProbe("watch", c.log)
	if o.Loki != nil {
		c.loki = newProbe("loki", c.log)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hindsight_canary_watch_seconds",
			Help: "Time from writing the last canary Event until the watch returned it, or the age of the oldest pending one if that is longer.",
		}, c.watch.seconds))
		if c.loki != nil {
			o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "hindsight_canary_loki_seconds",
				Help: "Time from writing the last canary Event until Loki returned it, or the age of the oldest pending one if that is longer.",
			}, c.loki.seconds))
		}
	}
	return c, nil
}

// Run writes the Event every minute and looks for it until ctx ends. It returns nil.
func (c *Canary) Run(ctx context.Context) error {
	var loops errgroup.Group
	loops.Go(func() error { every(ctx, writeInterval, c.write); return nil })
	loops.Go(func() error { every(ctx, overdueInterval, c.warnOverdue); return nil })
	if c.loki != nil {
		loops.Go(func() error { every(ctx, queryInterval, c.queryLoki); return nil })
	}
	err := loops.Wait()
	c.watch.reset()
	if c.loki != nil {
		c.loki.reset()
	}
	return err
}

// Observe must be called for each record after intake, as it will be sent. It is cheap and safe
// for concurrent use.
func (c *Canary) Observe(r *event.Record) {
	if r.Event == nil || r.Event.Reason != Reason || r.Event.Name != Name || r.Event.Namespace != c.o.Namespace {
		return
	}
	version := strings.Clone(r.Event.ResourceVersion) // the memory of the Event is reused
	if c.loki != nil {
		c.loki.locate(version, fmt.Sprintf("%s | %s=%q", c.o.Loki.Query(r), event.FieldEventVersion, version), r.Time)
	}
	c.watch.found(version)
}

func (c *Canary) warnOverdue(context.Context) {
	c.watch.warnOverdue()
	if c.loki != nil {
		c.loki.warnOverdue()
	}
}

// every calls f at once and then every d until ctx ends.
func every(ctx context.Context, d time.Duration, f func(context.Context)) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		f(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
