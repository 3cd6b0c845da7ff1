package app

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/canary"
	"github.com/hindsight-events/hindsight/internal/config"
	reader "github.com/hindsight-events/hindsight/query/loki"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
)

// canaryTimeout bounds each query for the canary Event.
const canaryTimeout = 10 * time.Second

// newCanary makes the canary of a configuration, nil if it is off. Loki is asked
// as the first Loki sink would be: with its credentials, for its streams.
func (p *process) newCanary(o Options, m made, reg prometheus.Registerer) (*canary.Canary, error) {
	c := o.Config
	if !c.Canary.Enabled {
		return nil, nil
	}
	if own := o.OwnNamespace; len(c.Source.Namespaces) > 0 && !slices.Contains(c.Source.Namespaces, own) {
		return nil, fmt.Errorf("canary: its Event is in our own namespace, %s, which is not among source.namespaces", own)
	}
	options := canary.Options{
		Client:     p.client,
		Namespace:  o.OwnNamespace,
		Pod:        os.Getenv("POD_NAME"),
		Logger:     o.Log.With("component", "canary"),
		Registerer: reg,
	}
	if c.Canary.QueryURL != "" {
		address, err := c.Canary.QueryURL.Parse()
		if err != nil {
			return nil, fmt.Errorf("canary.query_url: %w", err)
		}
		s, to := firstLoki(c, m.sinks)
		client, err := reader.New(reader.Config{URL: address, TenantID: s.TenantID, HTTP: s.HTTP, Timeout: canaryTimeout})
		if err != nil {
			return nil, fmt.Errorf("canary: %w", err)
		}
		options.Loki = &canary.Loki{
			Client: client,
			Query: func(r *event.Record) string {
				return strings.TrimSpace(string(to.AppendStream(nil, r)) + " " + versionParser(s))
			},
		}
	}
	return canary.New(options)
}

// firstLoki returns the first Loki sink; config has seen to it that there is one.
func firstLoki(c *config.Config, sinks []sink.Sink) (*loki.Config, sink.Sink) {
	for i, s := range c.Sinks {
		if s.Loki != nil {
			return s.Loki, sinks[i]
		}
	}
	return nil, nil
}

// versionParser is the stage of a query that finds the version of a state where
// it is in the line alone.
func versionParser(c *loki.Config) string {
	switch {
	case c.StructuredMetadata:
		return ""
	case c.Format == format.EventRouter:
		return fmt.Sprintf(`| json %s="event.metadata.resourceVersion"`, event.FieldEventVersion)
	default:
		return fmt.Sprintf(`| %s %s="eventRV"`, c.Format, event.FieldEventVersion)
	}
}
