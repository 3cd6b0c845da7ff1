//go:build e2e

package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// TestOnCallQueries runs the queries of an on-call engineer on the recorded outage: in Loki and in
// files, in every format, with and without structured metadata.
func TestOnCallQueries(t *testing.T) {
	t.Parallel()
	events := outage(t)
	formats := []string{"logfmt", "json", "eventrouter", "text"}
	for _, format := range formats {
		t.Run("file/"+format, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/events.jsonl"
			store(t, configure(t, fmt.Sprintf("file: {path: %s, format: %s, max_size: 64KiB, keep: 0, gzip: true}", path, format)), events)
			checkQueries(t, events, "--file", path)
		})
	}
	t.Run("loki", func(t *testing.T) {
		l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
		for _, format := range formats {
			// A tenant for each format separates their entries.
			t.Run(format, func(t *testing.T) {
				l.Tenant = format
				config := configure(t, lokiSink(l, ", tenant_id: "+format+", format: "+format))
				store(t, config, events)
				checkQueries(t, events, "--config", config)
				checkLogQL(t, l, events, "--config", config)
			})
			if format == "logfmt" || format == "json" {
				t.Run("short lines/"+format, func(t *testing.T) {
					l.Tenant = "short-" + format
					config := configure(t, lokiSink(l, ", tenant_id: short-"+format+", line: short, format: "+format))
					store(t, config, events)
					checkQueries(t, events, "--config", config)
					checkLogQL(t, l, events, "--config", config)
				})
			}
			t.Run("without structured metadata/"+format, func(t *testing.T) {
				config := configure(t, lokiSink(l, ", tenant_id: bare-"+format+", structured_metadata: false, format: "+format))
				store(t, config, events)
				checkQueries(t, events, "--config", config)
			})
		}
	})
}

// onCallQuery is a query and the Events that it must find.
type onCallQuery struct {
	args    []string
	matches func(*corev1.Event) bool
}

func onCallQueries(events []corev1.Event) map[string]onCallQuery {
	var preempted corev1.Event
	for _, e := range events {
		if e.Reason == "Preempted" {
			preempted = e
		}
	}
	node, pod := "pool-1-node-3", preempted.InvolvedObject
	onNode := func(e *corev1.Event) bool {
		r := event.NewReplayed(e.DeepCopy())
		return r.Value(event.FieldNode) == node
	}
	return map[string]onCallQuery{
		"all": {[]string{"-A"}, func(e *corev1.Event) bool { return true }},
		"Warnings of a namespace": {[]string{"-n", pod.Namespace, "--types", "warning"}, func(e *corev1.Event) bool {
			return e.Namespace == pod.Namespace && e.Type == "Warning"
		}},
		"a pod": {[]string{"-n", pod.Namespace, "--for", "pod/" + pod.Name}, func(e *corev1.Event) bool {
			return e.Namespace == pod.Namespace && e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.Name == pod.Name
		}},
		"a node": {[]string{"--for", "no/" + node}, func(e *corev1.Event) bool {
			return e.InvolvedObject.Kind == "Node" && e.InvolvedObject.Name == node
		}},
		"about or from a node": {[]string{"-A", "--node", node}, onNode},
		"preempted pods":       {[]string{"-A", "--reason", "Preempted"}, func(e *corev1.Event) bool { return e.Reason == "Preempted" }},
		"preemptions and failures to schedule": {[]string{"-A", "-l", `{reason=~"Preempted|Failed.*", namespace!="default"}`}, func(e *corev1.Event) bool {
			return (e.Reason == "Preempted" || strings.HasPrefix(e.Reason, "Failed")) && e.Namespace != "default"
		}},
		"text": {[]string{"-A", "--grep", "Insufficient cpu"}, func(e *corev1.Event) bool {
			return strings.Contains(e.Message, "Insufficient cpu")
		}},
		"not about pods": {[]string{"-A", "-l", `{kind!="Pod"}`}, func(e *corev1.Event) bool { return e.InvolvedObject.Kind != "Pod" }},
	}
}

// checkQueries runs all queries on one source.
func checkQueries(t *testing.T, events []corev1.Event, source ...string) {
	for name, q := range onCallQueries(events) {
		t.Run(name, func(t *testing.T) {
			textOnly := strings.Contains(t.Name(), "file/text") || strings.Contains(t.Name(), "without_structured_metadata/text")
			if textOnly && name == "about or from a node" {
				t.Skip("the format text has no node")
			}
			args := append(slices.Clone(source), q.args...)
			states := 0
			latest := map[string]bool{}
			for i := range events {
				if q.matches(&events[i]) {
					states++
					latest[string(events[i].UID)] = true
				}
			}
			if states == 0 {
				t.Fatal("no recorded Event matches")
			}
			if got := runQuery(t, append(args, "--states", "--no-headers")...); len(got) != states {
				t.Errorf("%d states, want %d:\n%s", len(got), states, strings.Join(got[:min(3, len(got))], "\n"))
			}
			got := runQuery(t, append(args, "--no-headers")...)
			// The format text has no uid.
			if !textOnly && len(got) != len(latest) {
				t.Errorf("%d rows, want one for each of %d Events", len(got), len(latest))
			}
			if name != "all" {
				return
			}
			newest := runQuery(t, append(args, "--no-headers", "--limit", "5")...)
			if want := got[max(0, len(got)-5):]; len(newest) != len(want) {
				t.Errorf("the newest five rows are\n%s\nwant\n%s", strings.Join(newest, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// checkLogQL checks that the output of --logql finds the same states.
func checkLogQL(t *testing.T, l *cluster.Loki, events []corev1.Event, source ...string) {
	for name, q := range onCallQueries(events) {
		t.Run("as LogQL/"+name, func(t *testing.T) {
			args := append(slices.Clone(source), q.args...)
			logql := runQuery(t, append(args, "--logql")...)[0]
			entries, err := l.Entries(t.Context(), logql, time.Now().Add(-24*time.Hour), time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			states := 0
			for i := range events {
				if q.matches(&events[i]) {
					states++
				}
			}
			if len(entries) != states {
				t.Errorf("%s finds %d entries, want %d", logql, len(entries), states)
			}
		})
	}
}
