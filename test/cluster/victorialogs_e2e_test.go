//go:build e2e

package cluster_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

func TestVictoriaLogsKeepsWhatItHasAccepted(t *testing.T) {
	v := cluster.StoppedVictoriaLogsForTest(t, "")
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now().Add(-time.Minute)
	const lines = 3500
	push(t, v.SinkURL(), "a", start, lines)
	push(t, v.SinkURL(), "a", start, lines) // stored twice, shown once
	push(t, v.SinkURL(), "b", start, 1)
	check := func() {
		t.Helper()
		entries, err := v.Entries(t.Context(), `{app="a"}`, start, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range entries {
			if len(e.Labels) != 1 || e.Labels["app"] != "a" || len(e.Metadata) != 1 || !strings.HasSuffix(e.Line, " "+e.Metadata["number"]) {
				t.Fatalf("got %+v", e)
			}
			if i > 0 && e.Time.Before(entries[i-1].Time) {
				t.Fatal("not in order")
			}
		}
		if len(entries) != lines {
			t.Fatalf("%d entries, want %d", len(entries), lines)
		}
	}
	check()
	// Other bytes are another entry.
	changed := start.Add(-time.Second)
	push(t, v.SinkURL(), "c", changed, 1)
	push(t, v.SinkURL(), "c", changed, 2)
	if entries, err := v.Entries(t.Context(), `{app="c"}`, changed, start); err != nil || len(entries) != 2 {
		t.Errorf("%d entries, of which one came again, %v; want 2", len(entries), err)
	}
	if entries, err := v.Entries(t.Context(), `{app="a"}`, start.Add(1), start.Add(2)); err != nil || len(entries) != 2 {
		t.Errorf("%d entries in a nanosecond, %v; want 2", len(entries), err)
	}
	if err := v.Pause(); err != nil {
		t.Fatal(err)
	}
	v.Kill()
	if resp, err := http.Get(v.SinkURL()); err == nil {
		resp.Body.Close()
		t.Fatal("a killed VictoriaLogs answers")
	}
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
}
