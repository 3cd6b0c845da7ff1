package event

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestValues(t *testing.T) {
	full := New(readEvent(t, "testdata/core-recorder-counted"))
	for _, tt := range []struct {
		name   string
		record Record
		field  string
		want   string
	}{
		{"the event's own namespace", New(readEvent(t, "testdata/cluster-scoped-object")), "namespace", "default"},
		{"the object's kind", full, "kind", "Pod"},
		{"the object's name", full, "name", "querier-7c9f6b4d5-x2x8l"},
		{"the object's uid", full, "uid", "6a7f9a52-5c0e-4b0b-9d0c-3f5b1de1a001"},
		{"the reason", full, "reason", "BackOff"},
		{"the event's own reason, not the label", Record{Event: &corev1.Event{Reason: "a b"}, Decisions: LabelDecisions{{DefaultLabels, LabelNamespace}}}, "reason", "a b"},
		{"a field that a label may withhold", Record{Event: &corev1.Event{Reason: "BackOff"}}, "full_reason", "BackOff"},
		{"the type", full, "type", "Warning"},
		{"the message", Record{Event: &corev1.Event{Message: "a\x00b"}}, "message", "a\x00b"},
		{"the event's uid", full, "event_uid", "0d3f8c1e-9a55-4c0d-8a27-5b1a6f2e7c11"},
		{"the event's version", full, "event_version", "48377"},
		{"the count", full, "count", "9"},
		{"a series' count", New(readEvent(t, "testdata/events-k8s-io-recorder-series")), "count", "7"},
		{"no count", Record{Event: &corev1.Event{}}, "count", ""},
		{"the level of a warning", full, "detected_level", "warn"},
		{"any other level", Record{Event: &corev1.Event{Type: "Strange"}}, "detected_level", "info"},
		{"the observed time", Record{Event: &corev1.Event{}, ObservedTime: time.Unix(1, 5000)}, "observed_time", "1970-01-01T00:00:01.000005Z"},

		{"the component of a core recorder", Record{Event: &corev1.Event{
			Source: corev1.EventSource{Component: "a"}, ReportingController: "b",
		}}, "component", "a"},
		{"of an events.k8s.io recorder", Record{Event: &corev1.Event{ReportingController: "b"}}, "component", "b"},

		{"the node an event is about", Record{Event: &corev1.Event{
			InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: "n"}, Source: corev1.EventSource{Host: "h"},
		}}, "node", "n"},
		{"the reporting node", full, "node", "node-7"},
		{"the node of a kubelet", New(readEvent(t, "testdata/kubelet-through-events-k8s-io")), "node", "node-3"},
		{"no node for other reporting instances", Record{Event: &corev1.Event{
			ReportingController: "scheduler", ReportingInstance: "scheduler-0",
		}}, "node", ""},

		{"a record without an event", Record{}, "reason", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, ok := ParseField(tt.field)
			if !ok {
				t.Fatalf("no field %s", tt.field)
			}
			if got := tt.record.Value(f); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFieldNames(t *testing.T) {
	for _, name := range fieldNames[1:] {
		if f, ok := ParseField(name); !ok || f.String() != name {
			t.Errorf("%q is read as %q, %v", name, f, ok)
		}
	}
	for _, name := range []string{"", "__name__", "Namespace", "msg"} {
		if f, ok := ParseField(name); ok {
			t.Errorf("%q is read as %q, want none", name, f)
		}
	}
}

func TestLabelIsOtherUnlessKept(t *testing.T) {
	r := Record{Event: &corev1.Event{Reason: "a b", Type: "Normal"}}
	if reason, kind := r.Label(FieldReason, LabelType), r.Label(FieldType, LabelType); reason != OtherLabel || kind != "Normal" {
		t.Errorf("got reason %q, type %q", reason, kind)
	}
}

// Loki compares structured metadata in the order sent, so that another order is another
// entry.
func TestMetadataIsSorted(t *testing.T) {
	r := New(readEvent(t, "testdata/clock-ahead"))
	r.Event.Source.Host = "node-1"
	kept := LabelNamespace | LabelKind | LabelNode
	r.Decisions[0] = LabelDecision{LabelSetOf(LabelFields...), kept}
	pairs := r.AppendMetadata([]Pair{{"before", "kept"}}, r.Decisions[0].Set)
	const left = 5 // component and type, full_kind and full_node, namespace
	if len(pairs) != 1+len(metadataFields)-left || pairs[0].Name != "before" {
		t.Fatalf("got %v, want all fields after the first pair", pairs)
	}
	if !slices.IsSortedFunc(pairs[1:], func(a, b Pair) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	}) {
		t.Errorf("not sorted: %v", pairs)
	}
	if got := new(Record).AppendMetadata(nil, DefaultLabels); len(got) != 0 {
		t.Errorf("a record without an event has %v", got)
	}
}
