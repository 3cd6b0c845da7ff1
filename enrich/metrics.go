package enrich

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the metrics of an Enricher.
type Metrics struct {
	lists, watches, misses *prometheus.CounterVec
	reads, waited          prometheus.Counter
}

// NewMetrics registers the metrics with r, which may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	options := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "hindsight", Subsystem: "enrich", Name: name, Help: help}
	}
	return &Metrics{
		lists:   f.NewCounterVec(options("lists_total", "Lists of metadata."), []string{"resource"}),
		watches: f.NewCounterVec(options("watches_total", "Watches of metadata that were opened."), []string{"resource"}),
		misses:  f.NewCounterVec(options("misses_total", "Events without the metadata of their object."), []string{"reason"}),
		reads:   f.NewCounter(options("reads_total", "Reads of the metadata of single objects.")),
		waited:  f.NewCounter(options("wait_seconds_total", "Time in which Events waited for the metadata of new objects.")),
	}
}

// begin creates the series, which are then zero.
func (m *Metrics) begin(watches []*reflection) {
	for _, w := range watches {
		m.lists.WithLabelValues(w.Resource)
		m.watches.WithLabelValues(w.Resource)
	}
	for _, reason := range []string{missUnknown, missOwner, missNoUID} {
		m.misses.WithLabelValues(reason)
	}
}
