//go:build e2e

package observe

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// notInTheOutage lists the panels and rules without data in the recorded outage.
var notInTheOutage = []string{
	"Evictions", "Creation", "Memory", "PodsEvicted",
	"Gaps", `"Age", query B`,
	// All of it is over in a minute; within ten, no pod has waited for long.
	"PodsUnschedulable",
}

// Every query of the dashboard and of the rules finds data of the recorded outage in a real Loki.
func TestLokiQueries(t *testing.T) {
	dir, err := os.MkdirTemp("", "loki-*") // Loki takes no comma in a path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// Where Loki reads the rules of the tenant that it has without authentication.
	tenant := filepath.Join(dir, "rules", "fake")
	if err := os.MkdirAll(tenant, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(rulesDir, "events.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	often := strings.Replace(string(text), "  - name: events\n", "  - name: events\n    interval: 1s\n", 1)
	write(t, filepath.Join(tenant, "events.rules.yaml"), often)
	recorded, err := os.ReadFile(filepath.Join(rulesDir, "events.recorded.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tenant, "events.recorded.yaml"), strings.Replace(string(recorded), "interval: 1m", "interval: 1s", 1))
	l := cluster.LokiForTest(t, cluster.LokiOptions{Dir: dir})
	_, stderr, code := program.Run(t, program.Options{
		Args:   []string{"replay", "--shift-to-now", recording},
		Config: fmt.Sprintf("cluster: observe\nsinks:\n  - {name: loki, loki: {url: %q, batch_wait: 200ms}}\n", l.URL()),
	})
	if code != 0 {
		t.Fatalf("hindsight replay: exit code %d\n%s", code, stderr)
	}
	now := time.Now().Add(time.Minute)

	for _, q := range lokiQueries(t, now) {
		t.Run(q.where, func(t *testing.T) {
			found := 0
			if q.step > 0 {
				found, _ = seriesOf(t, l, q, now, time.Hour)
			} else if q.log {
				entries, err := l.Answer(t.Context(), q.expr, now.Add(-2*time.Hour), now)
				if err != nil {
					t.Fatal(err)
				}
				found = len(entries)
			} else {
				if _, err := l.Samples(t.Context(), q.expr, now); err != nil {
					t.Fatal(err)
				}
				// The left side of the comparison of a rule.
				values := q.expr
				if i := strings.LastIndex(values, " > "); i >= 0 && !strings.Contains(q.where, ".json") {
					values = values[:i]
				}
				samples, err := l.Samples(t.Context(), values, now)
				if err != nil {
					t.Fatal(err)
				}
				found = len(samples)
			}
			expected := true
			for _, name := range notInTheOutage {
				expected = expected && !strings.Contains(q.where, name)
			}
			if (found > 0) != expected {
				t.Errorf("%s finds %d results, want some: %v", q.expr, found, expected)
			}
		})
	}

	// As examples/outage/README.md has it: most of the preemptors are of the same service.
	t.Run("who preempted whom", func(t *testing.T) {
		pods := map[string]int{}
		for _, q := range lokiQueries(t, now) {
			if !strings.Contains(q.where, `"Who preempted whom"`) {
				continue
			}
			samples, err := l.Samples(t.Context(), q.expr, now)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range samples {
				if w := s.Labels["workload"]; w != "ingester" && w != "querier" {
					t.Errorf("pods of the workload %q were preempted", w)
				}
				pods[s.Labels["by_namespace"]+"/"+s.Labels["by_workload"]+" in "+s.Labels["namespace"]] += int(s.Value)
			}
		}
		ours, theirs := pods["prod-metrics/ingester in prod-metrics"]+pods["prod-metrics/querier in prod-metrics"], pods["dedicated-metrics/ingester in prod-metrics"]
		if ours != 62 || theirs != 6 || len(pods) != 3 {
			t.Errorf("preempted pods by preemptor: %v, want 62 of prod-metrics itself and 6 of dedicated-metrics", pods)
		}
	})

	// A pod that has waited for ten minutes is found, one that was scheduled since is
	// not.
	t.Run("PodsUnschedulable, ten minutes later", func(t *testing.T) {
		var expr string
		for _, r := range rules(t, "events.rules.yaml") {
			if r.Alert == "PodsUnschedulable" {
				expr = r.Expr
			}
		}
		samples, err := l.Samples(t.Context(), expr, now.Add(15*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		want := unscheduled(t)
		for _, s := range samples {
			if namespace := s.Labels["namespace"]; int(s.Value) != want[namespace] {
				t.Errorf("%v pods of %s, want %d", s.Value, namespace, want[namespace])
			}
		}
		if len(samples) != len(want) {
			t.Errorf("%d namespaces, want %v", len(samples), want)
		}
	})

	t.Run("the ruler evaluates the rules", func(t *testing.T) { wantAlerts(t, l) })
}

// wantAlerts waits until Loki's ruler has the alerts of the outage: some firing, one pending.
func wantAlerts(t *testing.T, l *cluster.Loki) {
	t.Helper()
	want := map[string]string{"PreemptionCascade": "firing", "NodeNotReady": "firing", "ImagePullFailures": "pending"}
	all := rules(t, "events.rules.yaml")
	wait.Success(t, "the ruler has the alerts", func() error {
		var state struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
		if err := get(t.Context(), strings.TrimPrefix(l.URL(), "http://"), "/prometheus/api/v1/rules", nil, &state); err != nil {
			t.Fatal(err)
		}
		if len(state.Groups) != 2 {
			return errors.New("no rules")
		}
		rules := slices.Concat(state.Groups[0].Rules, state.Groups[1].Rules)
		if len(rules) != len(all)+1 {
			return fmt.Errorf("%d rules", len(rules))
		}
		var wrong []error
		for _, r := range rules {
			if r.Name == "kubernetes_events:count1m" && r.Health == "ok" {
				continue // it has no state
			}
			if want := cmp.Or(want[r.Name], "inactive"); r.Health != "ok" || r.State != want {
				wrong = append(wrong, fmt.Errorf("%s: health %s, state %s, want %s; %s", r.Name, r.Health, r.State, want, r.LastError))
			}
		}
		return errors.Join(wrong...)
	})
}

// seriesOf returns the number of series that a query has, at most, and the time that it took. It
// sends it as Grafana does.
func seriesOf(t *testing.T, l *cluster.Loki, q query, end time.Time, length time.Duration) (series int, took time.Duration) {
	t.Helper()
	var data struct {
		Result []json.RawMessage
	}
	path, values := "/loki/api/v1/query", url.Values{"query": {q.expr}, "time": {strconv.FormatInt(end.UnixNano(), 10)}}
	if q.step > 0 || q.log {
		path = "/loki/api/v1/query_range"
		values = url.Values{"query": {q.expr}, "start": {strconv.FormatInt(end.Add(-length).UnixNano(), 10)}, "end": {strconv.FormatInt(end.UnixNano(), 10)}}
		if q.log {
			values.Set("limit", "500")
		} else {
			values.Set("step", strconv.FormatFloat(q.step.Seconds(), 'f', -1, 64))
		}
	}
	begun := time.Now()
	err := get(t.Context(), strings.TrimPrefix(l.URL(), "http://"), path, values, &data)
	for attempts := 1; errors.Is(err, io.EOF) && attempts < 5; attempts++ { // no answer within 30 seconds, on a busy machine
		begun = time.Now()
		err = get(t.Context(), strings.TrimPrefix(l.URL(), "http://"), path, values, &data)
	}
	if err != nil {
		t.Errorf("%s: %s: %v", q.where, q.expr, err)
	}
	return len(data.Result), time.Since(begun)
}

// unscheduled returns how many pods of each namespace the recording leaves
// without a node.
func unscheduled(t *testing.T) map[string]int {
	t.Helper()
	events := recorded(t)
	waiting := map[types.UID]string{}
	for _, e := range events {
		if e.Reason == "FailedScheduling" && e.InvolvedObject.Kind == "Pod" {
			waiting[e.InvolvedObject.UID] = e.Namespace
		}
	}
	for _, e := range events {
		if e.Reason == "Scheduled" {
			delete(waiting, e.InvolvedObject.UID)
		}
	}
	pods := map[string]int{}
	for _, namespace := range waiting {
		pods[namespace]++
	}
	return pods
}
