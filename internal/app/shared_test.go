package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/delivery"
	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/internal/config"
)

// Parked records outlive a reload. The loss of a removed sink's records is logged and counted.
func TestParkedRecordsAcrossReloads(t *testing.T) {
	for journal, dir := range map[string]string{"in memory": "", "on disk": t.TempDir()} {
		t.Run(journal, func(t *testing.T) {
			var log bytes.Buffer
			reg := prometheus.NewRegistry()
			s := &sharedState{metrics: delivery.NewMetrics(reg), parked: make(map[string]*parked.Store)}
			c := config.Default()
			c.Journal.Dir = dir
			c.Sinks = []config.Sink{{Name: "kept", MaxParkedBytes: 1 << 20}, {Name: "removed", MaxParkedBytes: 1 << 20}}
			o := Options{Config: c, Log: slog.New(slog.NewTextHandler(&log, nil))}
			for _, k := range c.Sinks {
				p, err := s.parkedStore(k, o)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Queue("stream").Append([]byte("record"), []int{6}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			s.forgetRemovedSinks(o)
			if log.Len() > 0 {
				t.Errorf("logged without a change: %s", &log)
			}

			next := *c
			next.Sinks = c.Sinks[:1]
			reloaded := Options{Config: &next, Log: o.Log}
			s.forgetRemovedSinks(reloaded)
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "sink=removed") {
				t.Errorf("logged %q, want one warning about the removed sink", &log)
			}
			series, err := testutil.GatherAndCount(reg, "hindsight_sink_dropped_total")
			if err != nil || (series > 0) != (dir == "") {
				t.Errorf("%d series of dropped records, %v", series, err)
			}
			p, err := s.parkedStore(next.Sinks[0], reloaded)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := p.Size(); n != 1 {
				t.Errorf("%d records of the other sink are parked after the reload, want 1", n)
			}

			// A sink that is configured again finds its records on disk.
			p, err = s.parkedStore(c.Sinks[1], o)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := p.Size(); (n == 1) != (dir != "") {
				t.Errorf("%d records are parked for the sink that is configured again", n)
			}
		})
	}
}
