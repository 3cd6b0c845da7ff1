package app

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/canary"
	reader "github.com/hindsight-events/hindsight/query/loki"
	"github.com/hindsight-events/hindsight/sink/loki"
)

// canaryTimeout bounds each query for the canary Event.
const canaryTimeout = 10 * time.Second

// newCanary returns the canary of a configuration, nil if it is disabled. It queries Loki with the
// credentials and the streams of the first Loki sink.
func newCanary(o Options, client *rest.RESTClient, sinks sinkSet, reg prometheus.Registerer) (*canary.Canary, error) {
	c := o.Config
	if !c.Canary.Enabled {
		return nil, nil
	}
	if own := o.OwnNamespace; len(c.Source.Namespaces) > 0 && !slices.Contains(c.Source.Namespaces, own) {
		return nil, fmt.Errorf("canary: its Event is written to Hindsight's namespace %s, which is not in source.namespaces", own)
	}
	options := canary.Options{
		Client:     client,
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
		// config.Parse has checked that there is one.
		first := sinks[slices.IndexFunc(sinks, func(s openSink) bool { return s.config.Loki != nil })]
		l := first.config.Loki
		client, err := reader.New(reader.Config{URL: address, TenantID: l.TenantID, HTTP: l.HTTP, Timeout: canaryTimeout})
		if err != nil {
			return nil, fmt.Errorf("canary: %w", err)
		}
		options.Loki = &canary.Loki{
			Client: client,
			Query: func(r *event.Record) string {
				return strings.TrimSpace(string(first.AppendStream(nil, r)) + " " + versionParser(l))
			},
		}
	}
	return canary.New(options)
}

// versionParser returns the LogQL stage that extracts an Event's version from a line; empty if the
// version is structured metadata.
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
