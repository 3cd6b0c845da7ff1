package format

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// Entry is a stored line. From a file it has only the line.
type Entry struct {
	Time     time.Time         // zero: in the line
	Line     string            // without the line break
	Labels   map[string]string // of the stream; shared between entries, read-only
	Metadata map[string]string // structured

	// Record is set if the entry was parsed already; Parse returns it.
	Record *Record
}

// Record is a parsed entry.
type Record struct {
	// Record has the fields of the Event that the entry has. Encoding it in the format
	// of the line gives the same line.
	event.Record

	// WholeEvent is set if the line has the whole Event.
	WholeEvent bool

	// Labels of the stream, nil for an entry of a file.
	Labels map[string]string
}

// ErrForeign is the error for a line of another program.
var ErrForeign = errors.New("not a line of Hindsight")

// Parser parses entries.
type Parser struct {
	// Labels of the sink, from label name to field name; nil: namespace and reason.
	Labels map[string]string
}

// Parse parses an entry. Metadata has precedence over the line, which may have been
// truncated. A line that cannot be parsed becomes the message if the entry has metadata;
// otherwise the error is ErrForeign.
func (p Parser) Parse(e Entry) (Record, error) {
	if e.Record != nil {
		return *e.Record, nil
	}
	r := Record{Labels: e.Labels}
	r.Event = &corev1.Event{}
	fields := p.fields(e)
	b := builder{record: &r, fields: fields, hasMetadata: len(e.Metadata) > 0}
	ok := false
	switch text := e.Line; {
	case strings.HasPrefix(text, eventRouterStart):
		ok = b.parseEventRouter(text)
	case strings.HasPrefix(text, "{"):
		ok, b.flat = b.parseJSON(text), true
	case isLogfmt(text, b.hasMetadata):
		ok, b.flat = b.parseLogfmt(text), true
	default:
		ok = b.parseText(text)
	}
	if !ok {
		if !b.hasMetadata {
			return Record{}, ErrForeign
		}
		*r.Event = corev1.Event{Message: e.Line}
		r.WholeEvent = false
	}
	if !e.Time.IsZero() {
		r.Time = e.Time.UTC()
	}
	if !r.WholeEvent {
		b.addFields()
		b.setTimes()
	}
	b.addAttributes(p, e)
	if t := parseTime(fields[event.FieldObservedTime]); !t.IsZero() {
		r.ObservedTime = t
	}
	r.SetLevel(cmp.Or(fields[event.FieldDetectedLevel], b.level))
	r.Gap = p.isGap(e, &r)
	r.Position.Version, _ = strconv.ParseUint(r.Event.ResourceVersion, 10, 64)
	return r, nil
}

// isGap reports whether the record is a gap record, and not an Event with the same reason:
// such an Event has no cause and its reason label is OtherLabel. The format text has no
// cause, so a text line counts as a gap record unless its label excludes it.
func (p Parser) isGap(e Entry, r *Record) bool {
	if r.Event.Reason != event.GapReason || e.Metadata[event.FieldReason.Full().String()] != "" {
		return false
	}
	for name, value := range e.Labels {
		if f, ok := p.field(name); ok && f == event.FieldReason && value == event.OtherLabel {
			return false
		}
	}
	text := !strings.HasPrefix(e.Line, "{") && !isLogfmt(e.Line, len(e.Metadata) > 0)
	return text || !r.ForgedGap()
}

// fields returns the fields in the labels and the metadata.
func (p Parser) fields(e Entry) map[event.Field]string {
	fields := make(map[event.Field]string, len(e.Metadata)+2)
	for name, value := range e.Metadata {
		if f, ok := event.ParseField(name); ok {
			fields[f] = value
		} else if f, ok := event.ParseField(strings.TrimSuffix(name, "_extracted")); ok {
			// Loki renames metadata that has the name of a label.
			if _, ok := e.Metadata[f.String()]; !ok {
				fields[f] = value
			}
		}
	}
	for name, value := range e.Labels {
		f, ok := p.field(name)
		if value == event.OtherLabel && f != event.FieldNamespace {
			continue // the Event's own value, if any, is in the line or in full_<field>
		}
		if _, inMetadata := fields[f]; ok && !inMetadata {
			fields[f] = value
		}
	}
	for _, f := range event.LabelFields {
		if full, ok := fields[f.Full()]; ok {
			fields[f] = full
		}
	}
	return fields
}

var defaultLabels = event.DefaultLabelFields()

// field returns the field of a label.
func (p Parser) field(label string) (event.Field, bool) {
	labels := p.Labels
	if labels == nil {
		labels = defaultLabels
	}
	return event.ParseField(labels[label])
}

// builder builds a record from a line and from the fields of labels and metadata.
type builder struct {
	record      *Record
	fields      map[event.Field]string
	hasMetadata bool
	flat        bool // the line is logfmt or flat JSON

	// Parts of the line that have no field of their own in an Event.
	firstSeen time.Time
	count     int32
	component string
	node      string
	level     string
}

// addFields sets the fields of labels and metadata in the Event.
func (b *builder) addFields() {
	e := b.record.Event
	set := func(f event.Field, to *string) {
		if v, ok := b.fields[f]; ok && !isStoredAs(*to, v) {
			*to = v
		}
	}
	set(event.FieldNamespace, &e.Namespace)
	set(event.FieldReason, &e.Reason)
	set(event.FieldKind, &e.InvolvedObject.Kind)
	set(event.FieldName, &e.InvolvedObject.Name)
	set(event.FieldType, &e.Type)
	set(event.FieldEventVersion, &e.ResourceVersion)
	set(event.FieldComponent, &b.component)
	set(event.FieldNode, &b.node)
	set(event.FieldUID, (*string)(&e.InvolvedObject.UID))
	set(event.FieldEventUID, (*string)(&e.UID))
	if n, err := strconv.ParseInt(b.fields[event.FieldCount], 10, 32); err == nil {
		b.count = int32(n)
	}
	// Both are derived from other fields, which a text line does not have, and a short line
	// only if they differ.
	if b.component != "" && !isStoredAs(b.record.Value(event.FieldComponent), b.component) {
		e.Source.Component = b.component
		if b.flat && e.ReportingController == "" {
			e.ReportingController = b.component
		}
	}
	if b.node != "" && !isStoredAs(b.record.Value(event.FieldNode), b.node) {
		e.Source.Host = b.node
		if b.flat && e.ReportingInstance == "" {
			e.ReportingInstance = b.node
		}
	}
	// An Event is in the namespace of its object, unless that has none.
	if e.Namespace != "" && !clusterScoped(e) {
		e.InvolvedObject.Namespace = e.Namespace
	}
}

// isStoredAs reports whether the value of a line is the one that is stored as a label or
// metadata. In these, the sink or Loki has replaced U+FFFD.
func isStoredAs(line, stored string) bool {
	return line == stored || strings.ContainsRune(line, utf8.RuneError)
}

// addAttributes sets the attributes in labels and metadata: those of names that are no fields.
func (b *builder) addAttributes(p Parser, e Entry) {
	for name, value := range e.Metadata {
		name = strings.TrimPrefix(strings.TrimSuffix(name, "_extracted"), event.FullPrefix)
		b.setAttribute(name, value)
	}
	for label, value := range e.Labels {
		if name := p.Labels[label]; name != "" && value != event.OtherLabel {
			b.setAttribute(name, value)
		}
	}
}

// setAttribute sets an attribute, unless the name is that of another field.
func (b *builder) setAttribute(name, value string) {
	switch f, known := event.ParseField(name); {
	case known && f != event.FieldWorkloadKind && f != event.FieldWorkloadName:
	case len(b.record.Attributes) < maxAttributes && event.IsAttributeName(name):
		b.record.SetAttribute(name, value)
	}
}

// maxAttributes bounds what a line of another program can cause.
const maxAttributes = 64

func clusterScoped(e *corev1.Event) bool {
	return e.InvolvedObject.Kind == "Node" || e.InvolvedObject.Kind == "Namespace"
}

// setTimes sets the fields for the record's time, the first time and the count in the way
// of the recorders of either API.
func (b *builder) setTimes() {
	e, at, first := b.record.Event, b.record.Time, b.firstSeen
	inMicros := first.Nanosecond() != 0
	series := !first.IsZero() && (b.count <= 1 || inMicros || e.Source.Component == "")
	switch {
	case series:
		e.Series = &corev1.EventSeries{Count: b.count, LastObservedTime: metav1.NewMicroTime(at)}
		e.EventTime = metav1.NewMicroTime(first)
	case b.count != 0:
		e.Count = b.count
		e.LastTimestamp = metav1.NewTime(at)
		e.FirstTimestamp = metav1.NewTime(first)
		if b.count == 1 && first.IsZero() {
			e.FirstTimestamp = e.LastTimestamp
		}
	default:
		e.EventTime = metav1.NewMicroTime(at)
	}
}
