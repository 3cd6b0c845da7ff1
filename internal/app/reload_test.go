package app

import (
	"bytes"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/lease"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("hindsight.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A configuration that turns out to be unusable only when it is taken over costs
// nothing: a sink that it had removed still gets all it had not accepted, and the
// Lease goes on to name it.
func TestUnusableConfigurationCostsNothing(t *testing.T) {
	files := t.TempDir()
	const first = "sinks:\n  - {name: out, stdout: {}}\n"
	both := first + "  - {name: archive, file: {path: " + filepath.Join(files, "events.jsonl") + "}}\n"
	o := Options{Config: parse(t, both), OwnNamespace: "hindsight", Stdout: io.Discard, Log: slog.New(slog.DiscardHandler)}
	s, err := openStore(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.journal.Close()
	p := &process{Options: o, store: s, standing: newStanding(s.journal, lease.Checkpoint{})}
	before, err := p.newGeneration(o.Config, o.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Append(t.Context(), []event.Record{record(10)}); err != nil {
		t.Fatal(err)
	}
	if err := before.pipeline.close(); err != nil {
		t.Fatal(err)
	}

	unusable := parse(t, "source: {namespaces: [team-a]}\ncanary: {enabled: true}\n"+first)
	if _, err := p.newGeneration(unusable, o.Log); err == nil {
		t.Fatal("a canary whose Event nobody would see is taken over")
	}
	if behind := s.journal.Stats().Consumers["archive"].Behind; behind != 1 {
		t.Errorf("%d records wait for the sink that was removed, want 1", behind)
	}
	if _, known := p.standing.hold().Sinks["archive"]; !known {
		t.Error("the Lease forgets the sink that was removed")
	}
}

// What a reload throws away with a sink is counted.
func TestReloadThatRemovesASinkCountsItsBacklog(t *testing.T) {
	files := t.TempDir()
	const first = "sinks:\n  - {name: out, stdout: {}}\n"
	archive := func(name string) string {
		return first + "  - {name: " + name + ", file: {path: " + filepath.Join(files, "events.jsonl") + "}}\n"
	}
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	o := Options{Config: parse(t, archive("archive")), OwnNamespace: "hindsight", Stdout: io.Discard, Log: slog.New(slog.NewTextHandler(&log, nil))}
	s, err := openStore(o, reg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.journal.Close()
	p := &process{Options: o, store: s, standing: newStanding(s.journal, lease.Checkpoint{})}
	g, err := p.newGeneration(o.Config, o.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Append(t.Context(), []event.Record{record(10), record(11), record(12)}); err != nil {
		t.Fatal(err)
	}
	for _, next := range []string{archive("renamed"), first} {
		if err := g.pipeline.close(); err != nil {
			t.Fatal(err)
		}
		if g, err = p.newGeneration(parse(t, next), o.Log); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.pipeline.close(); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "hindsight_sink_dropped_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				counts[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = n
			}
		}
	}
	if len(counts) != 1 || counts["removed archive"] != 3 {
		t.Errorf("counted %v, want 3 records of archive", counts)
	}
	if n := strings.Count(log.String(), "level=WARN msg=\"a sink was removed; the records that it had not accepted are dropped\" component=journal sink=archive records=3"); n != 1 {
		t.Errorf("want one warning with the count in\n%s", &log)
	}
}
