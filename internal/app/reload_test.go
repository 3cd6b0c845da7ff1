package app

import (
	"bytes"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/internal/resume"
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

func record(version uint64) event.Record {
	return event.Record{
		Position: event.Position{Epoch: event.Epoch{Cluster: "uid-a"}, Version: version},
		Event:    &corev1.Event{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(version, 10)}},
	}
}

// newProcess returns a process that leads and has not started a generation.
func newProcess(t *testing.T, o Options, reg prometheus.Registerer) *process {
	t.Helper()
	o.OwnNamespace, o.Stdout = "hindsight", io.Discard
	shared, err := openSharedState(o, reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shared.journal.Close() })
	return &process{Options: o, shared: shared, resume: resume.New(shared.journal, lease.Checkpoint{})}
}

const stdoutSink = "sinks:\n  - {name: out, stdout: {}}\n"

func fileSink(t *testing.T, name string) string {
	return "  - {name: " + name + ", file: {path: " + filepath.Join(t.TempDir(), "events.jsonl") + "}}\n"
}

// A reload to a valid configuration that turns out to be unusable does not remove the sinks that
// are missing in it.
func TestFailedReloadKeepsSinks(t *testing.T) {
	o := Options{Config: parse(t, stdoutSink+fileSink(t, "archive")), Log: slog.New(slog.DiscardHandler)}
	p := newProcess(t, o, nil)
	g, err := p.newGeneration(p.Options)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.shared.journal.Append(t.Context(), []event.Record{record(10)}); err != nil {
		t.Fatal(err)
	}
	if err := g.pipeline.sinks.close(); err != nil {
		t.Fatal(err)
	}

	unusable := p.Options
	unusable.Config = parse(t, "source: {namespaces: [team-a]}\ncanary: {enabled: true}\n"+stdoutSink)
	if _, err := p.newGeneration(unusable); err == nil {
		t.Fatal("a canary in a namespace that is not watched is accepted")
	}
	if behind := p.shared.journal.Stats().Consumers["archive"].Behind; behind != 1 {
		t.Errorf("%d records wait for the removed sink, want 1", behind)
	}
	if _, known := p.resume.Snapshot().Sinks["archive"]; !known {
		t.Error("the removed sink is not in the checkpoint any more")
	}
}

func TestReloadThatRemovesASinkCountsItsBacklog(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	p := newProcess(t, Options{
		Config: parse(t, stdoutSink+fileSink(t, "archive")),
		Log:    slog.New(slog.NewTextHandler(&log, nil)),
	}, reg)
	g, err := p.newGeneration(p.Options)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.shared.journal.Append(t.Context(), []event.Record{record(10), record(11), record(12)}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{stdoutSink + fileSink(t, "renamed"), stdoutSink} {
		if err := g.pipeline.sinks.close(); err != nil {
			t.Fatal(err)
		}
		next := p.Options
		next.Config = parse(t, text)
		if g, err = p.newGeneration(next); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.pipeline.sinks.close(); err != nil {
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
	if n := strings.Count(log.String(), "component=journal sink=archive records=3"); n != 1 {
		t.Errorf("%d warnings with the count, want 1\n%s", n, &log)
	}
}
