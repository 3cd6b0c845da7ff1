package event

import (
	"math/bits"
	"strings"
)

// OtherLabel is the value of a label in place of the Event's own value, if that is not
// fit to be a label or would make too many streams.
const OtherLabel = "other"

// LabelFields are the fields with few enough values to be stream labels.
var LabelFields = []Field{
	FieldNamespace, FieldReason, FieldKind, FieldType, FieldComponent, FieldNode,
}

// LabelSet is a set of LabelFields, and LabelAttributes. It is stored, so the bits must not
// change.
type LabelSet uint8

const (
	LabelNamespace LabelSet = 1 << iota
	LabelReason
	LabelKind
	LabelType
	LabelComponent
	LabelNode
	LabelAttributes // all attributes that are labels of a sink: they are kept together
)

// DefaultLabels are the labels of a sink unless it configures others.
const DefaultLabels = LabelNamespace | LabelReason

// DefaultLabelFields returns DefaultLabels as a sink's configuration has them: label
// name to field name.
func DefaultLabelFields() map[string]string {
	return map[string]string{
		FieldNamespace.String(): FieldNamespace.String(),
		FieldReason.String():    FieldReason.String(),
	}
}

var labelBits = [endOfFields]LabelSet{
	FieldNamespace: LabelNamespace,
	FieldReason:    LabelReason,
	FieldKind:      LabelKind,
	FieldType:      LabelType,
	FieldComponent: LabelComponent,
	FieldNode:      LabelNode,
}

// LabelSetOf returns the set of the given fields, without those that cannot be labels.
func LabelSetOf(fields ...Field) (set LabelSet) {
	for _, f := range fields {
		set |= labelBits[f]
	}
	return set
}

// Has reports whether the field is in the set.
func (s LabelSet) Has(f Field) bool { return s&labelBits[f] != 0 }

// LabelDecision is the decision about one set of label fields: the labels of Kept, and
// always of the namespace, have the Event's own value, all others OtherLabel.
type LabelDecision struct{ Set, Kept LabelSet }

// MaxLabelDecisions is the largest number of decisions in a record.
const MaxLabelDecisions = 8

// LabelDecisions are the decisions about a record, each about another set of fields.
// A decision about the empty set ends the list. Without decisions, namespace and reason
// are kept.
type LabelDecisions [MaxLabelDecisions]LabelDecision

var defaultDecisions = LabelDecisions{{DefaultLabels, DefaultLabels}}

// KeptLabels returns the fields of the set of which the labels have the Event's own value.
//
// If a reload added this set after the intake, the decision with most fields in common
// applies, and its missing fields are not kept. So a reload adds no streams beyond that
// decision, and a record that is sent again has the same labels. The namespace is always
// kept, and so are all fields of a gap record.
func (r *Record) KeptLabels(set LabelSet) LabelSet {
	if r.Gap {
		return set
	}
	decisions := &r.Decisions
	if decisions[0].Set == 0 {
		decisions = &defaultDecisions
	}
	most, kept := 0, LabelSet(0)
	for _, d := range decisions {
		if d.Set == set {
			kept = d.Kept
			break
		}
		if common := bits.OnesCount8(uint8(d.Set & set)); common > most {
			most, kept = common, d.Kept&set
		}
	}
	return kept | set&LabelNamespace
}

// Fields returns the fields of the set.
func (s LabelSet) Fields() (fields []Field) {
	for _, f := range LabelFields {
		if s.Has(f) {
			fields = append(fields, f)
		}
	}
	return fields
}

// String lists the fields: "namespace,reason".
func (s LabelSet) String() string {
	var names []string
	for _, f := range s.Fields() {
		names = append(names, f.String())
	}
	if s&LabelAttributes != 0 {
		names = append(names, "attributes")
	}
	return strings.Join(names, ",")
}

// AttributeLabel returns the label value of an attribute: its value if LabelAttributes is in
// kept, else OtherLabel. An attribute that the record does not have has no label.
func (r *Record) AttributeLabel(name string, kept LabelSet) string {
	value := r.Attribute(name)
	if value != "" && kept&LabelAttributes == 0 {
		return OtherLabel
	}
	return validUTF8(value)
}

// Label returns the label value of the field in valid UTF-8: the field's value if it is
// in kept, else OtherLabel.
func (r *Record) Label(f Field, kept LabelSet) string {
	if !kept.Has(f) {
		return OtherLabel
	}
	return validUTF8(r.Value(f))
}
