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
	"github.com/hindsight-events/hindsight/internal/config"
)

// What is parked outlives a reload; that of a sink that is gone is not lost in
// silence.
func TestParkedRecordsOutliveAReload(t *testing.T) {
	for place, dir := range map[string]string{"memory": "", "directory": t.TempDir()} {
		t.Run(place, func(t *testing.T) {
			var log bytes.Buffer
			reg := prometheus.NewRegistry()
			s := &store{metrics: delivery.NewMetrics(reg)}
			c := config.Default()
			c.Journal.Dir = dir
			c.Sinks = []config.Sink{{Name: "kept", MaxParkedBytes: 1 << 20}, {Name: "gone", MaxParkedBytes: 1 << 20}}
			o := Options{Config: c, Log: slog.New(slog.NewTextHandler(&log, nil))}
			for _, k := range c.Sinks {
				p, err := s.parkedOf(c, k, o)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Queue("stream").Append([]byte("record"), []int{6}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			s.warnParked(c, o)
			if log.Len() > 0 {
				t.Errorf("logged although nothing has changed: %s", &log)
			}

			next := *c
			next.Sinks = c.Sinks[:1]
			s.warnParked(&next, o)
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "sink=gone") {
				t.Errorf("logged %q, want a warning about the sink that is gone", &log)
			}
			lost, err := testutil.GatherAndCount(reg, "hindsight_sink_dropped_total")
			if err != nil || (lost > 0) != (dir == "") {
				t.Errorf("%d series of dropped records, %v", lost, err)
			}
			p, err := s.parkedOf(&next, next.Sinks[0], o)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := p.Size(); n != 1 {
				t.Errorf("%d records are parked after the reload, want 1", n)
			}

			// A sink that comes back has what is in the directory.
			p, err = s.parkedOf(c, c.Sinks[1], o)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := p.Size(); (n == 1) != (dir != "") {
				t.Errorf("%d records are parked for the sink that came back", n)
			}
		})
	}
}
