package app

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/enrich"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
)

// fillTimeout bounds how long Events wait at a start for the metadata of all objects.
const fillTimeout = 30 * time.Second

// enrichment is a running Enricher.
type enrichment struct {
	*enrich.Enricher
	config     enrich.Config
	namespaces []string
	stop       func()
	filled     bool // Events have waited for it; of the goroutine that leads
}

// setEnrichment starts the Enricher of a configuration, and stops the previous one. One of the same
// configuration goes on.
func (p *process) setEnrichment(ctx context.Context, c *config.Config) error {
	if e := p.enrichment.Load(); e != nil {
		if reflect.DeepEqual(e.config, c.Enrich) && slices.Equal(e.namespaces, c.Source.Namespaces) {
			return nil
		}
		e.stop()
		p.enrichment.Store(nil)
	}
	if !c.Enrich.Enabled() {
		return nil
	}
	kubernetes := rest.CopyConfig(p.Kubernetes)
	kubernetes.QPS = -1 // the pages of a list follow each other
	client, err := metadata.NewForConfig(kubernetes)
	if err != nil {
		return fmt.Errorf("enrich: %w", err)
	}
	e := &enrichment{config: c.Enrich, namespaces: c.Source.Namespaces}
	e.Enricher = enrich.New(enrich.Options{
		Config: c.Enrich, Client: client, Namespaces: c.Source.Namespaces,
		Metrics: p.enrichMetrics, Logger: p.Log.With("component", "enrich"),
	})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Run(ctx)
	}()
	e.stop = func() { cancel(); <-ended }
	p.enrichment.Store(e)
	return nil
}

// stopEnrichment stops the Enricher, if there is one.
func (p *process) stopEnrichment() {
	if e := p.enrichment.Swap(nil); e != nil {
		e.stop()
	}
}

// fillEnrichment waits until the metadata of all objects is there, at most for fillTimeout.
func (p *process) fillEnrichment(ctx context.Context) {
	e := p.enrichment.Load()
	if e == nil || e.filled {
		return
	}
	e.filled = true
	begin := time.Now()
	waiting, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	if err := e.WaitFilled(waiting); err != nil && ctx.Err() == nil {
		p.Log.Warn("metadata is incomplete; Events are delivered without it", "err", err)
		return
	}
	p.Log.Info("metadata of objects read", "objects", e.Objects(), "after", time.Since(begin).Round(time.Millisecond))
}

// enrich adds attributes to records.
func (p *process) enrich(ctx context.Context, records []event.Record) {
	if e := p.enrichment.Load(); e != nil {
		e.Apply(ctx, records)
	}
}
