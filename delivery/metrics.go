package delivery

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
)

// Metrics of all deliveries of a process.
type Metrics struct {
	sent, resent, retries, dropped, parked *prometheus.CounterVec
	parkedRecords, parkedBytes             *prometheus.GaugeVec
}

// NewMetrics registers the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_sink_sent_total",
			Help: "Records accepted by the sink.",
		}, []string{"sink"}),
		resent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_sink_resent_total",
			Help: "Records sent again after a failed attempt.",
		}, []string{"sink"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_sink_retries_total",
			Help: "Failed attempts to send a batch, by reason.",
		}, []string{"sink", "reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_sink_dropped_total",
			Help: "Records that will never reach the sink, by reason.",
		}, []string{"sink", "reason"}),
		parked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hindsight_sink_parked_total",
			Help: "Records parked because the destination refused their stream while it accepted others.",
		}, []string{"sink"}),
		parkedRecords: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hindsight_sink_parked_records",
			Help: "Records that are parked at present.",
		}, []string{"sink"}),
		parkedBytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hindsight_sink_parked_bytes",
			Help: "Size of the parked records.",
		}, []string{"sink"}),
	}
	if reg != nil {
		reg.MustRegister(m.sent, m.resent, m.retries, m.dropped, m.parked, m.parkedRecords, m.parkedBytes)
	}
	return m
}

// CountDropped counts records that the journal or the configuration dropped before their
// delivery.
func (m *Metrics) CountDropped(sink, reason string, records int) {
	m.dropped.WithLabelValues(sink, reason).Add(float64(records))
}

// Reasons of records that a delivery drops, as values of the label reason.
const (
	droppedRejected       = "rejected"
	droppedDamaged        = string(event.CauseDamage)
	droppedParkedOverflow = "parked_overflow"
	droppedParkedExpired  = "parked_expired"
	droppedParkedLost     = "parked_lost"
)

// sinkMetrics are the metrics of one sink.
type sinkMetrics struct {
	sent, resent, parked       prometheus.Counter
	retries, dropped           *prometheus.CounterVec // by reason
	parkedRecords, parkedBytes prometheus.Gauge
}

// forSink returns the metrics of a sink. All reasons are exported from the start.
func (m *Metrics) forSink(name string) sinkMetrics {
	if m == nil {
		m = NewMetrics(nil)
	}
	labels := prometheus.Labels{"sink": name}
	s := sinkMetrics{
		sent:          m.sent.With(labels),
		resent:        m.resent.With(labels),
		parked:        m.parked.With(labels),
		retries:       m.retries.MustCurryWith(labels),
		dropped:       m.dropped.MustCurryWith(labels),
		parkedRecords: m.parkedRecords.With(labels),
		parkedBytes:   m.parkedBytes.With(labels),
	}
	for _, reason := range []string{
		string(event.CauseOverflow), string(journal.CauseRemoved),
		droppedRejected, droppedDamaged, droppedParkedOverflow, droppedParkedExpired, droppedParkedLost,
	} {
		s.dropped.WithLabelValues(reason)
	}
	for _, reason := range sink.Reasons {
		s.retries.WithLabelValues(reason)
	}
	return s
}

// countRetry counts a failed attempt; why is nil if the sink returned no *Error.
func (s sinkMetrics) countRetry(why *sink.Error) {
	reason := sink.ReasonOther
	if why != nil && slices.Contains(sink.Reasons, why.Reason) {
		reason = why.Reason
	}
	s.retries.WithLabelValues(reason).Inc()
}

func (s sinkMetrics) countDropped(reason string, records int) {
	s.dropped.WithLabelValues(reason).Add(float64(records))
}
