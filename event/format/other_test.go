package format

import (
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

// If labels are other, the Event's own values are in the metadata or in the line.
func TestLabelsThatAreOther(t *testing.T) {
	labels := map[string]string{"namespace": "namespace", "reason": "reason", "kind": "kind", "type": "type", "component": "component", "host": "node"}
	set := event.LabelSetOf(event.LabelFields...)
	for name, r := range records(t) {
		for _, f := range formats {
			for _, metadata := range []bool{true, false} {
				if f == Text && !metadata {
					continue // ambiguous
				}
				r.Decisions[0] = event.LabelDecision{Set: set, Kept: event.LabelNamespace}
				e := Entry{
					Time:     r.Time,
					Line:     string(Encoder{Format: f, Standalone: !metadata}.Append(nil, &r)),
					Labels:   map[string]string{},
					Metadata: map[string]string{},
				}
				for label, name := range labels {
					field, _ := event.ParseField(name)
					e.Labels[label] = r.Label(field, r.KeptLabels(set))
				}
				if metadata {
					for _, p := range r.AppendMetadata(nil, set) {
						e.Metadata[p.Name] = p.Value
					}
				}
				got, err := Parser{Labels: labels}.Parse(e)
				if err != nil {
					t.Errorf("%s in %s: %v", name, f, err)
					continue
				}
				for _, field := range event.LabelFields {
					want := valid(r.Value(field))
					if want == "" && f == Text {
						continue // parsed from the sentence
					}
					if v := valid(got.Value(field)); v != want {
						t.Errorf("%s in %s, metadata %v: %s is %q, want %q", name, f, metadata, field, v, want)
					}
				}
			}
		}
	}
}
