package event

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestKeptLabels(t *testing.T) {
	const (
		pair      = LabelNamespace | LabelReason
		component = LabelNamespace | LabelReason | LabelComponent
		node      = LabelNamespace | LabelNode
	)
	for _, tt := range []struct {
		name    string
		decided LabelDecisions
		gap     bool
		of      LabelSet
		want    LabelSet
	}{
		{"no decision keeps namespace and reason", LabelDecisions{}, false, pair, pair},
		{"the decision about the set", LabelDecisions{{pair, pair}, {component, pair}}, false, component, pair},
		{"a decision about another set is ignored", LabelDecisions{{component, LabelNamespace}, {pair, pair}}, false, pair, pair},
		{"a field without a decision is not kept", LabelDecisions{}, false, component, pair},
		{"a field that a reload replaced is not kept", LabelDecisions{{component, component}}, false, node, LabelNamespace},
		{"a set reduced by a reload", LabelDecisions{{component, component}}, false, pair, pair},
		{"a set reduced by a reload, without the field", LabelDecisions{{component, LabelNamespace}}, false, pair, LabelNamespace},
		{"the decision with most fields in common", LabelDecisions{{pair, pair}, {node, node}}, false, LabelNamespace | LabelNode | LabelKind, node},
		{"the first of equal decisions", LabelDecisions{{pair, LabelNamespace}, {node, node}}, false, LabelNamespace | LabelKind, LabelNamespace},
		{"nothing in common", LabelDecisions{}, false, LabelKind | LabelNode, 0},
		{"the namespace is always kept", LabelDecisions{{LabelNode, LabelNode}}, false, pair, LabelNamespace},
		{"no labels", LabelDecisions{}, false, 0, 0},
		{"a gap record keeps all", LabelDecisions{}, true, component | node, component | node},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Record{Event: &corev1.Event{}, Decisions: tt.decided, Gap: tt.gap}
			got := r.KeptLabels(tt.of)
			if got != tt.want {
				t.Errorf("{%s} are kept, want {%s}", got, tt.want)
			}
			if again := roundTrip(t, &r); again.KeptLabels(tt.of) != got {
				t.Errorf("{%s} are kept after a round trip, want {%s}", again.KeptLabels(tt.of), got)
			}
		})
	}
}

// The bits of fields are stored in journals.
func TestLabelSetBits(t *testing.T) {
	for bit, want := range []string{"namespace", "reason", "kind", "type", "component", "node"} {
		if got := LabelSet(1 << bit).String(); got != want {
			t.Errorf("bit %d is %q, was %q", bit, got, want)
		}
	}
}

// An earlier version stored the reason label if it was not the Event's reason.
func TestReasonLabelOfAnEarlierVersion(t *testing.T) {
	own, err := (&Record{Event: &corev1.Event{Reason: "a b"}}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data []byte
		want LabelSet
	}{
		"the Event's own": {own, LabelNamespace | LabelReason},
		"other":           {appendString(own[:len(own):len(own)], fieldReasonLabel, OtherLabel), LabelNamespace},
	} {
		var r Record
		if err := r.UnmarshalBinary(tt.data); err != nil {
			t.Fatal(err)
		}
		if got := r.KeptLabels(LabelNamespace | LabelReason | LabelNode); got != tt.want {
			t.Errorf("%s: {%s} are kept, want {%s}", name, got, tt.want)
		}
	}
}

func TestMetadataHasWithheldLabels(t *testing.T) {
	e := &corev1.Event{Reason: "LeaderElection", Type: "Normal", Source: corev1.EventSource{Component: "a_1", Host: "n"}}
	e.Namespace = "kube-system"
	e.InvolvedObject.Kind = "Lease"
	set := LabelSetOf(LabelFields...)
	for _, tt := range []struct {
		set, kept LabelSet
		want      string
	}{
		{set, set, "component=a_1 detected_level=info kind=Lease node=n type=Normal "},
		{set, DefaultLabels, "detected_level=info full_component=a_1 full_kind=Lease full_node=n full_type=Normal "},
		{set, LabelNamespace, "detected_level=info full_component=a_1 full_kind=Lease full_node=n full_reason=LeaderElection full_type=Normal "},
		{DefaultLabels | LabelComponent, LabelNamespace, "detected_level=info full_component=a_1 full_reason=LeaderElection kind=Lease node=n type=Normal "},
		{0, 0, "component=a_1 detected_level=info kind=Lease namespace=kube-system node=n type=Normal "},
	} {
		r := Record{Event: e, Decisions: LabelDecisions{{tt.set, tt.kept}}}
		got := ""
		for _, p := range r.AppendMetadata(nil, tt.set) {
			got += p.Name + "=" + p.Value + " "
		}
		if got != tt.want {
			t.Errorf("{%s} of {%s} kept: got\n%s\nwant\n%s", tt.kept, tt.set, got, tt.want)
		}
	}
}
