package router

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

func levelOf(l Levels, eventType, reason, message string) string {
	r := event.New(&corev1.Event{Type: eventType, Reason: reason, Message: message})
	r = NewIntake(IntakeOptions{Levels: l}).Apply([]event.Record{r})[0]
	return r.Value(event.FieldDetectedLevel)
}

// The messages are those of Kubernetes 1.36.
func TestDefaultLevels(t *testing.T) {
	for _, tt := range []struct{ want, eventType, reason, message string }{
		{"warn", "Normal", "Preempted", "Preempted by pod 8728f834-32bf-487b-a7f6-135e403043d0 on node n"},
		{"warn", "Normal", "TaintManagerEviction", "Marking for deletion Pod team-a/web-0"},
		{"info", "Normal", "TaintManagerEviction", "Cancelling deletion of Pod team-a/web-0"},
		{"warn", "Normal", "DeviceTaintManagerEviction", "Marking for deletion"},
		{"info", "Normal", "DeviceTaintManagerEviction", "Cancelling deletion"},
		{"warn", "Normal", "NodeControllerEviction", "Marking for deletion Pod web-0 from Node n"},
		{"warn", "Normal", "DeletingAllPods", "Deleting all Pods from Node n."},
		{"warn", "Normal", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"},
		{"warn", "Normal", "Killing", "Container web failed liveness probe, will be restarted"},
		{"warn", "Normal", "Killing", "Container web failed startup probe"},
		{"info", "Normal", "Killing", "Container web definition changed, will be restarted"},
		{"info", "Normal", "Killing", "Stopping container web"},
		{"warn", "Normal", "NodeNotReady", "Node n status is now: NodeNotReady"},
		{"info", "Normal", "NodeReady", "Node n status is now: NodeReady"},
		{"warn", "Normal", "NodeHasDiskPressure", "Node n status is now: NodeHasDiskPressure"},
		{"info", "Normal", "NodeHasNoDiskPressure", "Node n status is now: NodeHasNoDiskPressure"},
		{"warn", "Normal", "BackOff", `Back-off pulling image "web:1"`},
		{"warn", "Normal", "FailedBinding", "no persistent volumes available for this claim and no storage class is set"},
		{"warn", "Warning", "Unhealthy", "Readiness probe failed"},
		{"info", "Normal", "Scheduled", "Successfully assigned"},
		{"info", "", "", ""},
	} {
		if got := levelOf(DefaultLevels(), tt.eventType, tt.reason, tt.message); got != tt.want {
			t.Errorf("%s %s %q has the level %s, want %s", tt.eventType, tt.reason, tt.message, got, tt.want)
		}
	}
	if got := levelOf(Levels{}, "Normal", "Preempted", ""); got != "info" {
		t.Errorf("without levels, a Normal Event has the level %s", got)
	}
}

// docs/configuration.md shows the default list.
func TestDocumentedLevels(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	list := "levels:\n  warn:\n"
	for _, s := range DefaultLevels().Warn {
		list += "    - '" + s.String() + "'\n"
	}
	if !strings.Contains(string(doc), "\n"+list) {
		t.Errorf("docs/configuration.md does not have\n%s", list)
	}
}

func TestTheWorstLevelApplies(t *testing.T) {
	all := Levels{
		Critical: mustParse(t, `{reason="A"}`),
		Error:    mustParse(t, `{reason=~"A|B"}`),
		Warn:     mustParse(t, `{reason=~"A|B|C"}`),
		Info:     mustParse(t, `{reason=~"A|B|C|D"}`),
		Debug:    mustParse(t, `{reason=~"A|B|C|D|E"}`),
	}
	for reason, want := range map[string]string{"A": "critical", "B": "error", "C": "warn", "D": "info", "E": "debug", "F": "warn"} {
		if got := levelOf(all, "Warning", reason, ""); got != want {
			t.Errorf("reason %s has the level %s, want %s", reason, got, want)
		}
	}
}

// The record keeps its type, and its level when it is read again.
func TestLevelIsStored(t *testing.T) {
	in := NewIntake(IntakeOptions{Levels: Levels{Error: mustParse(t, `{message=~".*querier-7.*"}`)}, Redact: mustRedact(t, `querier-\d+`, `querier`)})
	r := in.Apply([]event.Record{preempted()})[0]
	if r.Event.Type != preempted().Event.Type || r.Value(event.FieldDetectedLevel) != "error" {
		t.Errorf("type %q, level %s", r.Event.Type, r.Value(event.FieldDetectedLevel))
	}
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var again event.Record
	if err := again.UnmarshalBinary(b); err != nil || again.Value(event.FieldDetectedLevel) != "error" {
		t.Errorf("after reading it again: %v: level %s", err, again.Value(event.FieldDetectedLevel))
	}
	// A replay decides anew.
	if r := NewIntake(IntakeOptions{}).Apply([]event.Record{again})[0]; r.Level != event.LevelOfType {
		t.Errorf("after another intake: level %d", r.Level)
	}
}
