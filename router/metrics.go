package router

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	dropped, redacted  prometheus.Counter
	malformed, tooMany prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "hindsight_intake_dropped_total",
		Help: "States that a drop rule kept from all sinks.",
	})
	redacted := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "hindsight_intake_redacted_total",
		Help: "States in which a redaction replaced something.",
	})
	other := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hindsight_intake_other_labels_total",
		Help: "States of which a label is \"other\", by cause: the reason is not CamelCase of at most 64 characters (malformed), or max_streams was reached.",
	}, []string{"cause"})
	if reg != nil {
		reg.MustRegister(dropped, redacted, other)
	}
	return &metrics{
		dropped:   dropped,
		redacted:  redacted,
		malformed: other.WithLabelValues("malformed"),
		tooMany:   other.WithLabelValues("max_streams"),
	}
}
