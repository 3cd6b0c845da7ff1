package journal

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the metrics off the journal when they are asked for.
type collector struct {
	j   *Journal
	reg prometheus.Registerer

	bytes, maxBytes, records, blocked, cut, behind, lag *prometheus.Desc
}

func newCollector(j *Journal, reg prometheus.Registerer) (*collector, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("hindsight_"+name, help, labels, nil)
	}
	c := &collector{
		j:        j,
		reg:      reg,
		bytes:    desc("journal_bytes", "Bytes kept in the journal."),
		maxBytes: desc("journal_max_bytes", "Bound of the bytes kept in the journal."),
		records:  desc("journal_records", "Records kept in the journal for some sink."),
		blocked:  desc("journal_blocked_seconds_total", "Time for which the journal took no records, because it was full or could not be written."),
		cut:      desc("journal_truncated_bytes_total", "Bytes of unfinished or damaged records cut off the end of the journal when it was opened."),
		behind:   desc("sink_behind_records", "Records in the journal that the sink has not accepted yet.", "sink"),
		lag:      desc("sink_lag_seconds", "Time since the oldest record was journaled that the sink has not accepted yet; 0 if there is none.", "sink"),
	}
	if reg == nil {
		return c, nil
	}
	if err := reg.Register(c); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}

func (c *collector) close() {
	if c.reg != nil {
		c.reg.Unregister(c)
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.bytes, c.maxBytes, c.records, c.blocked, c.cut, c.behind, c.lag} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.j.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(c.bytes, float64(s.Bytes))
	gauge(c.maxBytes, float64(s.MaxBytes))
	gauge(c.records, float64(s.Records))
	counter(c.blocked, s.Blocked.Seconds())
	counter(c.cut, float64(s.TruncatedBytes))
	for name, consumer := range s.Consumers {
		gauge(c.behind, float64(consumer.Behind), name)
		gauge(c.lag, consumer.Lag.Seconds(), name)
	}
}
