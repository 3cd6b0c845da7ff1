package event

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize/english"
	corev1 "k8s.io/api/core/v1"
)

// Field is a named value of a record that selectors, labels and structured metadata refer
// to.
type Field uint8

const (
	FieldNamespace     Field = iota + 1 // the Event's own, not the involved object's
	FieldKind                           // the involved object's
	FieldName                           // the involved object's
	FieldReason                         // the Event's own, never OtherLabel
	FieldType                           // Normal or Warning
	FieldComponent                      // the controller that reported it
	FieldNode                           // the node it is about or was reported from
	FieldMessage                        // as the reporter wrote it
	FieldUID                            // the involved object's
	FieldEventUID                       // the Event's
	FieldEventVersion                   // the Event's resourceVersion
	FieldCount                          // the number of occurrences
	FieldDetectedLevel                  // Level
	FieldObservedTime                   // Record.ObservedTime, RFC 3339
	FieldWorkloadKind                   // the controller at the top of the involved object's owners
	FieldWorkloadName
	// The Event's own value if the label of the field is OtherLabel.
	FieldFullReason
	FieldFullKind
	FieldFullType
	FieldFullComponent
	FieldFullNode
	endOfFields
)

var fieldNames = [endOfFields]string{
	FieldNamespace:     "namespace",
	FieldKind:          "kind",
	FieldName:          "name",
	FieldReason:        "reason",
	FieldType:          "type",
	FieldComponent:     "component",
	FieldNode:          "node",
	FieldMessage:       "message",
	FieldUID:           "uid",
	FieldEventUID:      "event_uid",
	FieldEventVersion:  "event_version",
	FieldCount:         "count",
	FieldDetectedLevel: "detected_level",
	FieldObservedTime:  "observed_time",
	FieldWorkloadKind:  "workload_kind",
	FieldWorkloadName:  "workload_name",
	FieldFullReason:    "full_reason",
	FieldFullKind:      "full_kind",
	FieldFullType:      "full_type",
	FieldFullComponent: "full_component",
	FieldFullNode:      "full_node",
}

// Fields are the fields that a selector may name.
var Fields = []Field{
	FieldNamespace, FieldKind, FieldName, FieldReason, FieldType,
	FieldComponent, FieldNode, FieldMessage,
}

// String returns the field's name in selectors, labels and structured metadata.
func (f Field) String() string {
	if f >= endOfFields {
		return ""
	}
	return fieldNames[f]
}

// FieldNames lists the names of fields, and of attributes, for error messages: "a, b and c".
func FieldNames(fields []Field, attributes ...string) string {
	var names []string
	for _, f := range fields {
		names = append(names, f.String())
	}
	return english.WordSeries(append(names, attributes...), "and")
}

// ParseField returns the field of a name, false if there is none.
func ParseField(name string) (Field, bool) {
	for f := FieldNamespace; f < endOfFields; f++ {
		if fieldNames[f] == name {
			return f, true
		}
	}
	return 0, false
}

// Value returns the field's value, empty if the Event has none. It may hold any bytes.
func (r *Record) Value(f Field) string {
	e := r.Event
	if e == nil {
		return ""
	}
	switch f {
	case FieldNamespace:
		return e.Namespace
	case FieldKind:
		return e.InvolvedObject.Kind
	case FieldName:
		return e.InvolvedObject.Name
	case FieldReason:
		return e.Reason
	case FieldType:
		return e.Type
	case FieldComponent:
		return component(e)
	case FieldNode:
		return node(e)
	case FieldMessage:
		return e.Message
	case FieldUID:
		return string(e.InvolvedObject.UID)
	case FieldEventUID:
		return string(e.UID)
	case FieldEventVersion:
		return e.ResourceVersion
	case FieldCount:
		if n := r.Count(); n != 0 {
			return strconv.Itoa(int(n))
		}
	case FieldDetectedLevel:
		return r.level()
	case FieldObservedTime:
		if !r.ObservedTime.IsZero() {
			return r.ObservedTime.UTC().Format(time.RFC3339Nano)
		}
	case FieldWorkloadKind, FieldWorkloadName:
		return r.Attribute(fieldNames[f])
	default:
		if own := withheldBy[f]; own != 0 {
			return r.Value(own)
		}
	}
	return ""
}

// Pair is a name and its value in structured metadata or a line.
type Pair struct {
	Name, Value string
}

// MaxMetadataValue is the length in bytes of the longest value that a sink stores as structured
// metadata; it truncates longer ones.
const MaxMetadataValue = 4 << 10

// metadataFields are sorted by name.
var metadataFields = [...]Field{
	FieldComponent, FieldCount, FieldDetectedLevel, FieldEventUID, FieldEventVersion,
	FieldFullComponent, FieldFullKind, FieldFullNode, FieldFullReason, FieldFullType,
	FieldKind, FieldName, FieldNamespace, FieldNode, FieldObservedTime, FieldType, FieldUID,
}

// IsMetadata reports whether the field may be in structured metadata.
func (f Field) IsMetadata() bool {
	return f == FieldWorkloadKind || f == FieldWorkloadName || slices.Contains(metadataFields[:], f)
}

// withheldBy maps a field full_<name> to the label that withholds its value.
var withheldBy = [endOfFields]Field{
	FieldFullReason:    FieldReason,
	FieldFullKind:      FieldKind,
	FieldFullType:      FieldType,
	FieldFullComponent: FieldComponent,
	FieldFullNode:      FieldNode,
}

// AppendMetadata appends the structured metadata of the record in a stream with the given
// labels, of which labelled are attributes: sorted by name, in valid UTF-8, without empty
// values. If a label is OtherLabel, full_<field> has the value instead of <field>. The
// namespace is in it unless it is a label, because lines beside metadata need not have it. It
// allocates only for a count of 100 or more, for an observed time, and for an attribute of
// which the label is OtherLabel.
func (r *Record) AppendMetadata(dst []Pair, set LabelSet, labelled ...string) []Pair {
	if r.Event == nil {
		return dst
	}
	start := len(dst)
	withheld := set &^ r.KeptLabels(set)
	elsewhere := withheld | set&LabelNamespace // in full_<field> or in the label
	for _, f := range metadataFields {
		if own := withheldBy[f]; elsewhere.Has(f) || own != 0 && !withheld.Has(own) {
			continue
		}
		if v := r.Value(f); v != "" {
			dst = append(dst, Pair{Name: fieldNames[f], Value: validUTF8(v)})
		}
	}
	for _, p := range r.Attributes {
		if slices.Contains(labelled, p.Name) {
			if withheld&LabelAttributes == 0 {
				continue
			}
			p.Name = FullPrefix + p.Name
		}
		i, _ := slices.BinarySearchFunc(dst[start:], p, comparePairs)
		dst = slices.Insert(dst, start+i, p)
	}
	return dst
}

// FullPrefix begins the name of the metadata that has the Event's own value of a label that
// is OtherLabel.
const FullPrefix = "full_"

func comparePairs(a, b Pair) int { return strings.Compare(a.Name, b.Name) }

// Full returns the field full_<name> of f, zero if it has none.
func (f Field) Full() Field {
	for full, own := range withheldBy {
		if own == f && f != 0 {
			return Field(full)
		}
	}
	return 0
}

// component returns the reporting controller: core/v1 recorders set source, recorders of
// events.k8s.io reportingController.
func component(e *corev1.Event) string {
	if e.Source.Component != "" {
		return e.Source.Component
	}
	return e.ReportingController
}

// node returns the involved Node, a core/v1 recorder's host, or the instance name of a
// kubelet.
func node(e *corev1.Event) string {
	switch {
	case e.InvolvedObject.Kind == "Node":
		return e.InvolvedObject.Name
	case e.Source.Host != "":
		return e.Source.Host
	case component(e) == "kubelet":
		return e.ReportingInstance
	default:
		return ""
	}
}

// validUTF8 checks first, because strings.ToValidUTF8 is slow on a valid string.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
