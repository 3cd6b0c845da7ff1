package query

import (
	"maps"
	"slices"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// Layout is where a Loki sink stores the fields of a record. The zero value is invalid; see
// DefaultLayout.
type Layout struct {
	Format   format.Format
	Metadata bool              // fields are in structured metadata, not only in the line
	Job      string            // the label job; empty: not matched
	Labels   map[string]string // label → field
	Fixed    map[string]string // label → value
}

// DefaultLayout is the layout of a sink with the default configuration.
func DefaultLayout() Layout {
	return Layout{Format: format.Logfmt, Metadata: true, Job: "hindsight", Labels: event.DefaultLabelFields()}
}

// inLine are the keys of fields that LogQL's parsers extract from a line.
var inLine = map[format.Format]map[event.Field]string{
	format.Logfmt: flatKeys,
	format.JSON:   flatKeys,
	format.EventRouter: {
		event.FieldNamespace: "event.metadata.namespace", event.FieldKind: "event.involvedObject.kind",
		event.FieldName: "event.involvedObject.name", event.FieldReason: "event.reason", event.FieldType: "event.type",
		event.FieldMessage: "event.message", event.FieldUID: "event.involvedObject.uid",
		event.FieldEventUID: "event.metadata.uid", event.FieldEventVersion: "event.metadata.resourceVersion",
	},
}

var flatKeys = map[event.Field]string{
	event.FieldNamespace: "namespace", event.FieldKind: "kind", event.FieldName: "name", event.FieldReason: "reason",
	event.FieldType: "type", event.FieldMessage: "msg", event.FieldComponent: "component", event.FieldNode: "node",
	event.FieldUID: "uid", event.FieldEventUID: "event_uid", event.FieldEventVersion: "eventRV",
	event.FieldDetectedLevel: "detected_level",
}

// label returns the label of a field, empty if the field is not a label.
func (l Layout) label(f event.Field) string {
	for _, label := range sortedKeys(l.Labels) {
		if l.Labels[label] == f.String() {
			return label
		}
	}
	return ""
}

// attributeLabel returns the label of an attribute, empty if the attribute is not a label.
func (l Layout) attributeLabel(name string) string {
	for _, label := range sortedKeys(l.Labels) {
		if _, isField := field(l.Labels[label]); l.Labels[label] == name && !isField {
			return label
		}
	}
	return ""
}

// isLabel reports whether streams of the sink have a label of that name.
func (l Layout) isLabel(name string) bool {
	return name == "cluster" || name == "job" || l.Labels[name] != "" || l.Fixed[name] != ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
