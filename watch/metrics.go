package watch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
)

// Metrics of all watchers of a process. Their label "source" is the namespace
// watched, empty for all.
type Metrics struct {
	contact   *prometheus.GaugeVec
	events    *prometheus.CounterVec
	skipped   *prometheus.CounterVec
	relists   *prometheus.CounterVec
	gaps      *prometheus.CounterVec
	overflows *prometheus.CounterVec
	stalls    *prometheus.CounterVec
}

// Values of the label "reason" of hindsight_watch_skipped_total.
const (
	skippedSeen        = "seen"
	skippedUndecodable = "undecodable"
)

// NewMetrics registers the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		contact: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hindsight_watch_last_contact_timestamp_seconds",
			Help: "When the API server last answered as it should.",
		}, []string{"source"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_events_total",
			Help: "States of Events read and taken over by the journal.",
		}, []string{"source"}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_skipped_total",
			Help: "States of Events read and not passed on: seen (before) or undecodable.",
		}, []string{"source", "reason"}),
		relists: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_relists_total",
			Help: "Lists taken in, by what made them necessary.",
		}, []string{"source", "reason"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_gaps_total",
			Help: "Stretches in which states may have been missed, by cause.",
		}, []string{"source", "cause"}),
		overflows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_spool_overflows_total",
			Help: "Times a part of a list was passed on before the rest was sorted, because the spool was full.",
		}, []string{"source"}),
		stalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_stalls_total",
			Help: "Watches that ended without anything newer while lists show newer Events. It grows for as long as that goes on.",
		}, []string{"source"}),
	}
	if reg != nil {
		reg.MustRegister(m.contact, m.events, m.skipped, m.relists, m.gaps, m.overflows, m.stalls)
	}
	return m
}

// sourceMetrics are the metrics of one source.
type sourceMetrics struct {
	contact           prometheus.Gauge
	events, overflows prometheus.Counter
	seen, undecodable prometheus.Counter
	stalls            prometheus.Counter
	relists           map[relistReason]prometheus.Counter
	gaps              map[event.Cause]prometheus.Counter
}

func (m *Metrics) forSource(source string) sourceMetrics {
	if m == nil {
		m = NewMetrics(nil)
	}
	s := sourceMetrics{
		contact:     m.contact.WithLabelValues(source),
		events:      m.events.WithLabelValues(source),
		overflows:   m.overflows.WithLabelValues(source),
		seen:        m.skipped.WithLabelValues(source, skippedSeen),
		undecodable: m.skipped.WithLabelValues(source, skippedUndecodable),
		stalls:      m.stalls.WithLabelValues(source),
		relists:     make(map[relistReason]prometheus.Counter),
		gaps:        make(map[event.Cause]prometheus.Counter),
	}
	for r, cause := range gapCauses {
		s.relists[r] = m.relists.WithLabelValues(source, string(r))
		if cause != "" {
			s.gaps[cause] = m.gaps.WithLabelValues(source, string(cause))
		}
	}
	return s
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
