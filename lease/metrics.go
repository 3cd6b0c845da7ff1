package lease

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	failures prometheus.Counter
	bytes    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, l *Lease) *metrics {
	m := &metrics{
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hindsight_lease_failures_total",
			Help: "Failed requests for the Lease.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hindsight_lease_checkpoint_bytes",
			Help: "Size of the last checkpoint, stored or not; at most 64 KiB can be stored.",
		}),
	}
	if reg == nil {
		return m
	}
	// Computed on each scrape, so that they do not depend on a goroutine that runs in time.
	leader := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hindsight_lease_leader",
		Help: "Whether this replica is the leader (1) or a candidate (0).",
	}, func() float64 {
		if l.Leading() {
			return 1
		}
		return 0
	})
	renewed := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hindsight_lease_last_renewal_timestamp_seconds",
		Help: "Start time of the last successful renewal by this replica; 0 for a candidate.",
	}, func() float64 {
		renewed, left := l.deadline.check()
		if left <= 0 {
			return 0
		}
		return float64(renewed.wall.UnixNano()) / 1e9
	})
	unsaved := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hindsight_lease_checkpoint_unsaved",
		Help: "Whether the current checkpoint is too large for the Lease, which keeps the previous one (1), or not (0).",
	}, func() float64 {
		if l.Leading() && l.checkpointHealth.ready() != nil {
			return 1
		}
		return 0
	})
	reg.MustRegister(m.failures, m.bytes, leader, renewed, unsaved)
	return m
}
