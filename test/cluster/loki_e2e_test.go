//go:build e2e

package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// push sends lines of one stream, a nanosecond apart, as JSON.
func push(t *testing.T, url, app string, from time.Time, lines int) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"streams":[{"stream":{"app":%q},"values":[`, app)
	for i := range lines {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `["%d","line %d",{"number":"%d"}]`, from.UnixNano()+int64(i/2), i, i)
	}
	b.WriteString(`]}]}`)
	resp, err := http.Post(url, "application/json", &b)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("push: %s", resp.Status)
	}
}

func TestLokiKeepsWhatItHasAnswered(t *testing.T) {
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	start := time.Now().Add(-time.Minute)
	const lines = 3500 // several pages, two of a time
	push(t, l.URL()+"/loki/api/v1/push", "a", start, lines)
	check := func() {
		t.Helper()
		entries, err := l.Entries(t.Context(), `{app="a"}`, start, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for i, e := range entries {
			seen[e.Line] = true
			if e.Labels["app"] != "a" || !strings.HasSuffix(e.Line, " "+e.Metadata["number"]) {
				t.Fatalf("got %+v", e)
			}
			if i > 0 && e.Time.Before(entries[i-1].Time) {
				t.Fatal("not in order")
			}
		}
		if len(entries) != lines || len(seen) != lines {
			t.Fatalf("%d entries, %d lines; want %d", len(entries), len(seen), lines)
		}
		samples, err := l.Samples(t.Context(), `sum(count_over_time({app="a"}[1h]))`, time.Now())
		if err != nil || len(samples) != 1 || samples[0].Value != lines {
			t.Fatalf("counted %v, %v; want %d", samples, err, lines)
		}
	}
	check()
	l.Kill()
	if _, err := l.Entries(t.Context(), `{app="a"}`, start, time.Now()); err == nil {
		t.Fatal("a killed Loki answers")
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
	streams, err := l.Streams(t.Context(), `{app=~".+"}`, start, time.Now())
	if err != nil || len(streams) != 1 || streams[0]["app"] != "a" {
		t.Errorf("streams are %v, %v", streams, err)
	}
}

// As with eventrouter: Promtail scrapes the standard output and labels lines with a field of the
// Event.
func TestPromtailLabelsEventrouterLines(t *testing.T) {
	cluster.NeedPromtail(t)
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	dir, err := os.MkdirTemp("", "promtail-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	now := time.Now().Truncate(time.Second)
	var lines []byte
	want := map[string]string{} // from the line to the namespace
	for i := range 100 {
		r := event.New(&corev1.Event{
			ObjectMeta:    metav1.ObjectMeta{Namespace: fmt.Sprintf("team-%d", i%7), Name: fmt.Sprint("web.", i), ResourceVersion: fmt.Sprint(i + 1)},
			Reason:        "Pulled",
			Message:       fmt.Sprintf("number %d\n\x1b[2J\xff \"quoted\"", i),
			LastTimestamp: metav1.NewTime(now),
		})
		line := format.Encoder{Format: format.EventRouter, Standalone: true}.Append(nil, &r)
		want[string(line)] = r.Event.Namespace
		lines = append(append(lines, line...), '\n')
	}
	path := filepath.Join(dir, "stdout.log")
	if err := os.WriteFile(path, lines, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := cluster.StartPromtail(t.Context(), cluster.PromtailOptions{
		Dir: dir, LokiURL: l.URL(), Path: path, Labels: map[string]string{"app": "eventrouter"},
		Stages: []any{
			map[string]any{"json": map[string]any{"expressions": map[string]string{"namespace": "event.metadata.namespace"}}},
			map[string]any{"labels": map[string]any{"namespace": nil}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var entries []cluster.LokiEntry
	for len(entries) < len(want) && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond) // polling
		if entries, err = l.Entries(ctx, `{app="eventrouter"}`, now.Add(-time.Minute), now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		if namespace, ok := want[e.Line]; !ok || e.Labels["namespace"] != namespace {
			t.Errorf("the namespace of %q is %q, want %q", e.Line, e.Labels["namespace"], namespace)
		}
		delete(want, e.Line)
	}
	if len(want) > 0 {
		t.Errorf("%d lines did not arrive", len(want))
	}
}
