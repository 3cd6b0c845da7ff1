//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// Files that run has written, and the output of query, are replayed to Loki: the entries
// equal those that run has pushed, byte for byte.
func TestReplayedFilesEqualWatchedEvents(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	client := newClient(t, c)
	ledger := newLedger()
	mustCreate(t, ledger, client, newEvent("default", "before.", "there before"))

	dir := t.TempDir()
	tenant := func(name, more string) string {
		return strings.Replace(lokiSink(l.URL(), ", tenant_id: "+name+more), "name: loki", "name: "+name, 1)
	}
	file := func(format string) string { return filepath.Join(dir, format+".log") }
	sinks := tenant("watched", "") + tenant("whole", ", format: eventrouter") + tenant("short", ", line: short")
	for _, format := range []string{"eventrouter", "json", "logfmt"} {
		sinks += fmt.Sprintf("  - {name: %s, file: {path: %q, format: %s}}\n", format, file(format), format)
	}
	config := "cluster: " + clusterName + "\nsinks:\n" + sinks
	p := start(t, c.Kubeconfig(), config)

	now := time.Now()
	for i, at := range []time.Time{
		time.Unix(21, 0), now.Add(-31 * time.Minute), now.Add(-29 * time.Minute), now, now.Add(time.Minute), now.Add(24 * time.Hour), {},
	} {
		e := newEvent("default", fmt.Sprintf("clock.%d.", i), "by another clock")
		e.FirstTimestamp, e.LastTimestamp = metav1.NewTime(at), metav1.NewTime(at)
		mustCreate(t, ledger, client, e)
		e = newEvent("default", fmt.Sprintf("series.%d.", i), "by another clock")
		e.FirstTimestamp, e.LastTimestamp, e.Count = metav1.Time{}, metav1.Time{}, 0
		e.ReportingController, e.ReportingInstance, e.Action = "k8s.io/x", "x-1", "Doing"
		e.EventTime = metav1.NewMicroTime(now.Add(-time.Hour))
		e.Series = &corev1.EventSeries{Count: 3, LastObservedTime: metav1.NewMicroTime(at)}
		mustCreate(t, ledger, client, e)
	}
	for _, text := range hostile[:len(hostile)-1] {
		mustCreate(t, ledger, client, newEvent("default", "hostile.", text))
	}
	entries := func(tenant string) []string {
		l.Tenant = tenant
		from, to := testRange()
		found, err := l.Entries(t.Context(), `{job="hindsight"}`, from, to.Add(24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range cluster.WithoutAPIServer(found) {
			all = append(all, fmt.Sprintf("%s %v %v %q", e.Time.UTC().Format(time.RFC3339Nano), e.Labels, e.Metadata, e.Line))
		}
		slices.Sort(all)
		return all
	}
	for _, tenant := range []string{"watched", "whole", "short"} {
		if !wait.Within(t.Context(), time.Minute, func() bool { return len(entries(tenant)) == ledger.len() }) {
			t.Fatalf("Loki has %d entries of the sink %s, want %d", len(entries(tenant)), tenant, ledger.len())
		}
	}
	if code := p.terminate(); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	watched := entries("watched")
	if !strings.Contains(strings.Join(watched, "\n"), "observed_time:1970-01-01T00:00:21Z") {
		t.Error("no time was bounded: the test is void")
	}

	run := func(stdin []byte, args ...string) []byte {
		t.Helper()
		stdout, stderr, code := program.Run(t, program.Options{Args: args, Stdin: bytes.NewReader(stdin)})
		if code != 0 {
			t.Fatalf("hindsight %s: exit code %d\n%s", args, code, stderr)
		}
		return []byte(stdout)
	}
	query := func(sink, output string) []byte {
		return run(nil, "query", "-A", "--states", "--config", p.ConfigPath, "--sink", sink,
			"--from", now.Add(-4*time.Hour).Format(time.RFC3339), "--to", now.Add(time.Hour).Format(time.RFC3339), "-o", output)
	}
	read := func(format string) []byte {
		b, err := os.ReadFile(file(format))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, input := range map[string][]byte{
		"eventrouter": read("eventrouter"), "json": read("json"), "logfmt": read("logfmt"),
		"query-json": query("whole", "json"), "query-yaml": query("whole", "yaml"),
		"query-short-lines": query("short", "json"),
	} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(config, []byte("cluster: "+clusterName+"\nsinks:\n"+tenant(name, "")), 0o644); err != nil {
				t.Fatal(err)
			}
			run(input, "replay", "-", "--config", config)
			replayed := entries(name)
			if slices.Equal(replayed, watched) {
				return
			}
			t.Errorf("%d entries of the watch, %d of the file", len(watched), len(replayed))
			for i := range max(len(watched), len(replayed)) {
				if i >= len(watched) || i >= len(replayed) || watched[i] != replayed[i] {
					t.Fatalf("they differ at %d:\n%s\n%s", i, slices.Concat(watched, []string{""})[min(i, len(watched))], slices.Concat(replayed, []string{""})[min(i, len(replayed))])
				}
			}
		})
	}
}
