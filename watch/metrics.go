package watch

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
)

// Metrics of all watchers of a process. The label "source" is the namespace, empty for all.
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
			Help: "Time of the last successful response of the API server.",
		}, []string{"source"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_events_total",
			Help: "States of Events read and stored in the journal.",
		}, []string{"source"}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_skipped_total",
			Help: "States of Events read and not stored, by reason: seen (before) or undecodable.",
		}, []string{"source", "reason"}),
		relists: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_relists_total",
			Help: "Lists read, by reason.",
		}, []string{"source", "reason"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_gaps_total",
			Help: "Gaps declared, in which states may have been missed, by cause.",
		}, []string{"source", "cause"}),
		overflows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_spool_overflows_total",
			Help: "Parts of lists stored before the rest was sorted, because the space for sorting was full.",
		}, []string{"source"}),
		stalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_watch_stalls_total",
			Help: "Watches that ended without delivering anything while lists showed newer Events. It increases during a stall.",
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

// countEmitted counts states that Handle has stored.
func (w *Watcher) countEmitted(states int) {
	w.emittedCount.Add(int64(states))
	w.metrics.events.Add(float64(states))
}

// countUndecodable counts a state that cannot be decoded and is skipped. A retry would not help.
func (w *Watcher) countUndecodable(err error) {
	w.metrics.undecodable.Inc()
	level := slog.LevelDebug
	if w.undecodedCount.Add(1) == 1 {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "event cannot be decoded and is skipped", "err", err)
}
