package router

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	dropped, redacted  prometheus.Counter
	malformed, limited prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "hindsight_intake_dropped_total",
		Help: "States dropped by a rule.",
	})
	redacted := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "hindsight_intake_redacted_total",
		Help: "States changed by a redaction.",
	})
	other := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hindsight_intake_other_labels_total",
		Help: "States with a label \"other\", by cause: the reason is not CamelCase of at most 64 characters (malformed), or max_streams is reached.",
	}, []string{"cause"})
	if reg != nil {
		reg.MustRegister(dropped, redacted, other)
	}
	return &metrics{
		dropped:   dropped,
		redacted:  redacted,
		malformed: other.WithLabelValues("malformed"),
		limited:   other.WithLabelValues("max_streams"),
	}
}
