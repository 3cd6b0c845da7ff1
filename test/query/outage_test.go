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

// The questions of people on call, each answered by one short command: from Loki
// and from files, in every format, with and without structured metadata.
func TestQuestionsOfPeopleOnCall(t *testing.T) {
	events := recorded(t)
	formats := []string{"logfmt", "json", "eventrouter", "text"}
	for _, format := range formats {
		t.Run("file/"+format, func(t *testing.T) {
			path := t.TempDir() + "/events.jsonl"
			store(t, configure(t, fmt.Sprintf("file: {path: %s, format: %s, max_size: 64KiB, keep: 0, gzip: true}", path, format)), events)
			questions(t, events, "--file", path)
		})
	}
	t.Run("loki", func(t *testing.T) {
		l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
		for _, format := range formats {
			// A tenant for each, so that they do not see each other's.
			t.Run(format, func(t *testing.T) {
				l.Tenant = format
				config := configure(t, lokiSink(l, ", tenant_id: "+format+", format: "+format))
				store(t, config, events)
				questions(t, events, "--config", config)
				logql(t, l, events, "--config", config)
			})
			t.Run("without structured metadata/"+format, func(t *testing.T) {
				config := configure(t, lokiSink(l, ", tenant_id: bare-"+format+", structured_metadata: false, format: "+format))
				store(t, config, events)
				questions(t, events, "--config", config)
			})
		}
	})
}

type question struct {
	args []string
	is   func(*corev1.Event) bool
}

func onCall(events []corev1.Event) map[string]question {
	var preempted corev1.Event
	for _, e := range events {
		if e.Reason == "Preempted" {
			preempted = e
		}
	}
	node, pod := "pool-1-node-3", preempted.InvolvedObject
	about := func(e *corev1.Event) bool {
		r := event.NewReplayed(e.DeepCopy())
		return r.Value(event.FieldNode) == node
	}
	return map[string]question{
		"everything": {[]string{"-A"}, func(e *corev1.Event) bool { return true }},
		"all Warnings of a namespace": {[]string{"-n", pod.Namespace, "--types", "warning"}, func(e *corev1.Event) bool {
			return e.Namespace == pod.Namespace && e.Type == "Warning"
		}},
		"all that happened to a pod": {[]string{"-n", pod.Namespace, "--for", "pod/" + pod.Name}, func(e *corev1.Event) bool {
			return e.Namespace == pod.Namespace && e.InvolvedObject.Kind == "Pod" && e.InvolvedObject.Name == pod.Name
		}},
		"all that happened to a node": {[]string{"--for", "no/" + node}, func(e *corev1.Event) bool {
			return e.InvolvedObject.Kind == "Node" && e.InvolvedObject.Name == node
		}},
		"all that was said about a node or on it": {[]string{"-A", "--node", node}, about},
		"who was preempted":                       {[]string{"-A", "--reason", "Preempted"}, func(e *corev1.Event) bool { return e.Reason == "Preempted" }},
		"preemptions and failures to schedule": {[]string{"-A", "-l", `{reason=~"Preempted|Failed.*", namespace!="default"}`}, func(e *corev1.Event) bool {
			return (e.Reason == "Preempted" || strings.HasPrefix(e.Reason, "Failed")) && e.Namespace != "default"
		}},
		"what says something": {[]string{"-A", "--grep", "Insufficient cpu"}, func(e *corev1.Event) bool {
			return strings.Contains(e.Message, "Insufficient cpu")
		}},
		"what is not about pods": {[]string{"-A", "-l", `{kind!="Pod"}`}, func(e *corev1.Event) bool { return e.InvolvedObject.Kind != "Pod" }},
	}
}

// questions asks them all of one place.
func questions(t *testing.T, events []corev1.Event, where ...string) {
	for what, q := range onCall(events) {
		t.Run(what, func(t *testing.T) {
			alone := strings.Contains(t.Name(), "file/text") || strings.Contains(t.Name(), "without_structured_metadata/text")
			if alone && strings.Contains(what, "on it") {
				t.Skip("a sentence does not say from where it was reported")
			}
			args := append(slices.Clone(where), q.args...)
			states := 0
			latest := map[string]bool{}
			for i := range events {
				if q.is(&events[i]) {
					states++
					latest[string(events[i].UID)] = true
				}
			}
			if states == 0 {
				t.Fatal("nothing of that kind was recorded: the question tests nothing")
			}
			if got := ask(t, append(args, "--states", "--no-headers")...); len(got) != states {
				t.Errorf("%d states, want %d:\n%s", len(got), states, strings.Join(got[:min(3, len(got))], "\n"))
			}
			got := ask(t, append(args, "--no-headers")...)
			// Nor does it say which Event it is of.
			if !alone && len(got) != len(latest) {
				t.Errorf("%d rows, want one for each of %d Events", len(got), len(latest))
			}
			if what != "everything" {
				return
			}
			newest := ask(t, append(args, "--no-headers", "--limit", "5")...)
			if want := got[max(0, len(got)-5):]; len(newest) != len(want) {
				t.Errorf("the newest five are\n%s\nwant\n%s", strings.Join(newest, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// logql holds what --logql prints against what the command itself finds.
func logql(t *testing.T, l *cluster.Loki, events []corev1.Event, where ...string) {
	for what, q := range onCall(events) {
		t.Run("as LogQL/"+what, func(t *testing.T) {
			args := append(slices.Clone(where), q.args...)
			query := ask(t, append(args, "--logql")...)[0]
			entries, err := l.Entries(t.Context(), query, time.Now().Add(-24*time.Hour), time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			states := 0
			for i := range events {
				if q.is(&events[i]) {
					states++
				}
			}
			if len(entries) != states {
				t.Errorf("%s finds %d entries, want %d", query, len(entries), states)
			}
		})
	}
}
