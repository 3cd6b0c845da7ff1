// Package canary proves that Events arrive. Every minute it writes an Event of
// our own, which must come back through the watch and, where a Loki can be
// queried, be found there. It says how long that took, and how long it has been
// waiting for it.
//
// It needs get, create and patch on events in our own namespace, and runs only
// while this replica leads.
package canary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

// Reason is that of the Event.
const Reason = "HindsightCanary"

// Name is that of the Event. It is the same in every replica, so that there is
// one Event, whose count goes on.
const Name = "hindsight-canary"

const (
	writeEvery = time.Minute
	// overdueAfter is when it is logged that something has not arrived.
	overdueAfter = 2 * time.Minute
	checkEvery   = 10 * time.Second
)

// Options of New.
type Options struct {
	Client    *rest.RESTClient // for core/v1, as watch.NewClient makes it
	Namespace string           // our own: where the Event is
	Pod       string           // our own, whose Event it then is; empty: the namespace's

	Loki *Loki // nil: is not asked

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: no metrics
}

// Loki is where the Event has to be found.
type Loki struct {
	URL    *url.URL     // of its API, without /loki/api/v1
	Client *http.Client // nil: http.DefaultClient
	Header http.Header  // of each request: the tenant

	// Query returns what selects the stream of a record, {…}, and, if its version
	// is not structured metadata there, a parser behind it that makes it a label:
	// {…} | logfmt.
	Query func(*event.Record) string
}

// Canary is made by New.
type Canary struct {
	o     Options
	log   *slog.Logger
	watch *stage
	loki  *stage // nil: is not asked
	event written
}

// New prepares it; nothing is asked of any server yet.
func New(o Options) (*Canary, error) {
	if o.Namespace == "" {
		return nil, errors.New("canary: the namespace for the Event is missing: set POD_NAMESPACE")
	}
	c := &Canary{o: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}
	c.watch = newStage("watch", c.log)
	if o.Loki != nil {
		c.loki = newStage("loki", c.log)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hindsight_canary_watch_seconds",
			Help: "How long the last canary Event took to come back through the watch; while one is awaited for longer, for how long.",
		}, c.watch.seconds))
		if c.loki != nil {
			o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "hindsight_canary_loki_seconds",
				Help: "How long the last canary Event took to be found in Loki; while one is awaited for longer, for how long.",
			}, c.loki.seconds))
		}
	}
	return c, nil
}

// Run writes the Event every minute and looks for it until ctx ends. It returns
// nil.
func (c *Canary) Run(ctx context.Context) error {
	var loops errgroup.Group
	loops.Go(func() error { every(ctx, writeEvery, c.write); return nil })
	loops.Go(func() error { every(ctx, checkEvery, c.check); return nil })
	if c.loki != nil {
		loops.Go(func() error { every(ctx, askEvery, c.ask); return nil })
	}
	err := loops.Wait()
	c.watch.stop()
	if c.loki != nil {
		c.loki.stop()
	}
	return err
}

// Seen is told of each record that was taken in, after the intake: as it will be
// sent. It is cheap, and may be called by several goroutines.
func (c *Canary) Seen(r *event.Record) {
	if r.Event == nil || r.Event.Reason != Reason || r.Event.Name != Name || r.Event.Namespace != c.o.Namespace {
		return
	}
	version := strings.Clone(r.Event.ResourceVersion) // the Event is used for another
	if c.loki != nil {
		c.loki.look(version, fmt.Sprintf("%s | %s=%q", c.o.Loki.Query(r), event.FieldEventVersion, version), r.Time)
	}
	c.watch.arrived(version)
}

func (c *Canary) check(context.Context) {
	c.watch.check()
	if c.loki != nil {
		c.loki.check()
	}
}

// every calls f at once and then every d until ctx ends; late, if f takes
// longer.
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
