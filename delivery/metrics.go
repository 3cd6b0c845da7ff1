package delivery

import (
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

// sinkMetrics are the metrics of one sink.
type sinkMetrics struct {
	sent, resent, parked       prometheus.Counter
	rejected, damaged          prometheus.Counter // dropped
	overflow, expired, ended   prometheus.Counter // dropped while they were parked
	parkedRecords, parkedBytes prometheus.Gauge
	retriesByReason            map[string]prometheus.Counter
}

func (m *Metrics) forSink(name string) sinkMetrics {
	if m == nil {
		m = NewMetrics(nil)
	}
	s := sinkMetrics{
		sent:     m.sent.WithLabelValues(name),
		resent:   m.resent.WithLabelValues(name),
		parked:   m.parked.WithLabelValues(name),
		rejected: m.dropped.WithLabelValues(name, "rejected"),
		damaged:  m.dropped.WithLabelValues(name, string(event.CauseDamage)),

		overflow: m.dropped.WithLabelValues(name, "parked_overflow"),
		expired:  m.dropped.WithLabelValues(name, "parked_expired"),
		ended:    m.dropped.WithLabelValues(name, "parked_lost"),

		parkedRecords: m.parkedRecords.WithLabelValues(name),
		parkedBytes:   m.parkedBytes.WithLabelValues(name),

		retriesByReason: make(map[string]prometheus.Counter, len(sink.Reasons)),
	}
	for _, reason := range []event.Cause{event.CauseOverflow, event.CauseDamage, journal.CauseRemoved} {
		m.dropped.WithLabelValues(name, string(reason)) // exports 0
	}
	for _, reason := range sink.Reasons {
		s.retriesByReason[reason] = m.retries.WithLabelValues(name, reason)
	}
	return s
}

// retries returns the counter of failed attempts; why is nil if the sink returned no *Error.
func (s sinkMetrics) retries(why *sink.Error) prometheus.Counter {
	if why != nil {
		if c, ok := s.retriesByReason[why.Reason]; ok {
			return c
		}
	}
	return s.retriesByReason[sink.ReasonOther]
}
