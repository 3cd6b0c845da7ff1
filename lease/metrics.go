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
			Help: "Requests about the Lease that failed.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hindsight_lease_positions_bytes",
			Help: "Size of the positions as last written into the Lease, or as they would be if they fitted; 192 KiB fit.",
		}),
	}
	if reg == nil {
		return m
	}
	// Asked, not set: both are true without any goroutine having run in time.
	leader := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hindsight_lease_leader",
		Help: "Whether this replica leads (1) or waits (0).",
	}, func() float64 {
		if l.Leading() {
			return 1
		}
		return 0
	})
	renewed := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hindsight_lease_last_renewal_timestamp_seconds",
		Help: "When the last successful renewal by this replica was begun; 0 while it waits.",
	}, func() float64 {
		renewed, left := l.deadline.check()
		if left <= 0 {
			return 0
		}
		return float64(renewed.wall.UnixNano()) / 1e9
	})
	unsaved := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hindsight_lease_positions_unsaved",
		Help: "Whether the Lease keeps former positions because the present ones do not fit (1) or not (0).",
	}, func() float64 {
		if l.Leading() && l.unsaved.ready() != nil {
			return 1
		}
		return 0
	})
	reg.MustRegister(m.failures, m.bytes, leader, renewed, unsaved)
	return m
}
