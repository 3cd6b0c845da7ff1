//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

const recording = "../../examples/outage/events.json"

// replay runs hindsight replay on the recording and returns its standard output.
func replay(t *testing.T, args ...string) []byte {
	t.Helper()
	stdout, stderr, code := program.Run(t, program.Options{Args: append([]string{"replay", recording}, args...)})
	if code != 0 {
		t.Fatalf("hindsight replay: exit code %d\n%s", code, stderr)
	}
	return []byte(stdout)
}

// recorded returns the Events of the recording.
func recorded(t *testing.T) []corev1.Event {
	t.Helper()
	data, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	var list corev1.EventList
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// As with eventrouter: Promtail reads the output of the container, a json stage extracts the
// namespace, a labels stage makes it a label.
func TestPromtailReadsOurOutput(t *testing.T) {
	t.Parallel()
	cluster.NeedPromtail(t)
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	dir := t.TempDir()
	log := filepath.Join(dir, "hindsight.log")
	if err := os.WriteFile(log, replay(t, "--shift-to-now"), 0o644); err != nil {
		t.Fatal(err)
	}
	promtail, err := cluster.StartPromtail(t.Context(), cluster.PromtailOptions{
		Dir: filepath.Join(dir, "promtail"), LokiURL: l.URL(), Path: log,
		Labels: map[string]string{"job": "eventrouter"},
		Stages: []any{
			map[string]any{"json": map[string]any{"expressions": map[string]string{"namespace": "event.metadata.namespace"}}},
			map[string]any{"labels": map[string]any{"namespace": nil}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(promtail.Stop)

	want := map[string]int{}
	for _, e := range recorded(t) {
		want[e.Namespace]++
	}
	wait.Success(t, "Loki has the lines by label", func() error {
		got := map[string]int{}
		for _, e := range stored(t, l, `{job="eventrouter"}`) {
			got[e.Labels["namespace"]]++
			var line struct {
				Event struct{ Metadata struct{ Namespace string } }
			}
			if err := json.Unmarshal([]byte(e.Line), &line); err != nil || line.Event.Metadata.Namespace != e.Labels["namespace"] {
				t.Fatalf("label %q on a line of %q: %v", e.Labels["namespace"], line.Event.Metadata.Namespace, err)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}

// On-call questions are answered by one short query on the default lines, without a parser
// stage.
func TestOnCallQueries(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("cluster: "+clusterName+"\nsinks:\n"+lokiSink(l.URL(), "")), 0o644); err != nil {
		t.Fatal(err)
	}
	replay(t, "--shift-to-now", "--config", config)
	events := recorded(t)
	var preempted corev1.Event
	for _, e := range events {
		if e.Reason == "Preempted" {
			preempted = e
		}
	}
	var preemptor string
	if _, err := fmt.Sscanf(preempted.Message, "Preempted by pod %s on node", &preemptor); err != nil {
		t.Fatalf("%q: %v", preempted.Message, err)
	}
	count := func(is func(*corev1.Event) bool) (n int) {
		for i := range events {
			if is(&events[i]) {
				n++
			}
		}
		return n
	}
	node := "pool-1-node-3"

	for question, c := range map[string]struct {
		query string
		want  int
	}{
		"all Warnings of a namespace": {
			`{namespace="prod-metrics"} | type="Warning"`,
			count(func(e *corev1.Event) bool { return e.Namespace == "prod-metrics" && e.Type == "Warning" }),
		},
		"Events of one pod": {
			fmt.Sprintf(`{namespace="prod-metrics"} | kind="Pod" | name=%q`, preempted.InvolvedObject.Name),
			count(func(e *corev1.Event) bool {
				return e.Namespace == "prod-metrics" && e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.Name == preempted.InvolvedObject.Name
			}),
		},
		"Events of a node": {
			fmt.Sprintf(`{job="hindsight"} | kind="Node" | name=%q`, node),
			count(func(e *corev1.Event) bool { return e.InvolvedObject.Kind == "Node" && e.InvolvedObject.Name == node }),
		},
		"Events of and on a node": {
			fmt.Sprintf(`{job="hindsight"} | node=%q`, node),
			count(func(e *corev1.Event) bool {
				return e.InvolvedObject.Kind == "Node" && e.InvolvedObject.Name == node || e.Source.Host == node ||
					e.ReportingController == "kubelet" && e.ReportingInstance == node
			}),
		},
		"preempted pods": {
			`{reason="Preempted"}`,
			count(func(e *corev1.Event) bool { return e.Reason == "Preempted" }),
		},
		"Events of the preemptor, by the uid in the message": {
			fmt.Sprintf(`{job="hindsight"} | uid=%q`, preemptor),
			count(func(e *corev1.Event) bool { return string(e.InvolvedObject.UID) == preemptor }),
		},
		"Warnings": {
			`{job="hindsight"} | type="Warning"`,
			count(func(e *corev1.Event) bool { return e.Type == "Warning" }),
		},
		"Events that look like errors": {
			`{job="hindsight"} | detected_level="warn"`,
			count(func(e *corev1.Event) bool {
				return e.Type == "Warning" || e.Reason == "Preempted" || e.Reason == "NodeNotReady" || e.Reason == "BackOff"
			}),
		},
	} {
		t.Run(question, func(t *testing.T) {
			got := stored(t, l, c.query)
			if len(got) != c.want || c.want == 0 {
				t.Errorf("%s finds %d entries, want %d", c.query, len(got), c.want)
			}
		})
	}

	for question, c := range map[string]struct {
		query string
		want  map[string]int // by the label that distinguishes the results
		by    string
		most  int
	}{
		"rate by reason": {
			query: `sum by (reason) (count_over_time({namespace="prod-metrics"}[1h]))`, by: "reason",
			want: func() map[string]int {
				n := map[string]int{}
				for _, e := range events {
					if e.Namespace == "prod-metrics" {
						n[e.Reason]++
					}
				}
				return n
			}(),
		},
		"the ten noisiest objects": {
			query: `topk(10, sum by (namespace, kind, name) (count_over_time({job="hindsight"}[1h])))`, by: "name", most: 10,
		},
	} {
		t.Run(question, func(t *testing.T) {
			samples, err := l.Samples(t.Context(), c.query, time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if c.most > 0 && len(samples) != c.most || c.most == 0 && len(samples) != len(c.want) {
				t.Errorf("%s has %d results, want %d", c.query, len(samples), max(c.most, len(c.want)))
			}
			for _, s := range samples {
				name := s.Labels[c.by]
				if c.want != nil && int(s.Value) != c.want[name] {
					t.Errorf("%s: %s is %v, want %d", c.query, name, s.Value, c.want[name])
				}
				if name == "" {
					t.Errorf("%s: a result without the label %s", c.query, c.by)
				}
			}
		})
	}
}
