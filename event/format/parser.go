package format

import (
	"errors"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// Entry is a line as it was stored, and what was stored beside it. An entry of a
// file has nothing but the line.
type Entry struct {
	Time     time.Time         // zero: the line says it
	Line     string            // without the line break
	Labels   map[string]string // of the stream; shared by its entries, not to be changed
	Metadata map[string]string // structured

	// Record is set if the entry was read already; Parse returns it.
	Record *Record
}

// Record is what an entry says.
type Record struct {
	// Record has what the line and what is beside it say of the Event. Encoding
	// it again in the line's format gives the same line.
	event.Record

	// WholeEvent is set if the line held the whole Event.
	WholeEvent bool

	// Labels of the stream, nil for an entry of a file.
	Labels map[string]string
}

// ErrForeign is of a line that says nothing of an Event.
var ErrForeign = errors.New("not a line of Hindsight")

// Parser reads entries.
type Parser struct {
	// Labels are those taken from the Event, from the label's name to the field,
	// as in the configuration of the sink; nil: namespace and reason.
	Labels map[string]string
}

// Parse reads an entry. Where line and metadata differ, metadata is believed: it
// is stored as it was, while a long line may have been cut. What was cut so that
// it cannot be read at all is the message of what metadata says. The error is
// ErrForeign.
func (p Parser) Parse(e Entry) (Record, error) {
	if e.Record != nil {
		return *e.Record, nil
	}
	r := Record{Labels: e.Labels}
	r.Event = &corev1.Event{}
	b := p.beside(e)
	d := draft{record: &r, reason: b[event.FieldReason], kind: b[event.FieldKind], name: b[event.FieldName], metadata: len(e.Metadata) > 0}
	ok := false
	switch text := e.Line; {
	case strings.HasPrefix(text, eventRouterStart):
		ok = d.eventRouter(text)
	case strings.HasPrefix(text, "{"):
		ok = d.json(text)
	case isLogfmt(text):
		ok = d.logfmt(text)
	default:
		ok = d.text(text)
	}
	if !ok {
		if len(e.Metadata) == 0 {
			return Record{}, ErrForeign
		}
		*r.Event = corev1.Event{Message: e.Line}
		r.WholeEvent = false
	}
	if !e.Time.IsZero() {
		r.Time = e.Time.UTC()
	}
	if !r.WholeEvent {
		d.beside(b)
		d.times()
	}
	if t, err := time.Parse(time.RFC3339Nano, b[event.FieldObservedTime]); err == nil {
		r.ObservedTime = t.UTC()
	}
	r.Gap = p.isGap(e, &r)
	r.Position.Version, _ = strconv.ParseUint(r.Event.ResourceVersion, 10, 64)
	return r, nil
}

// isGap reports whether a record is one of our own gaps: an Event of the cluster can
// have their reason. Its reason label is Other, and it has no cause. A line of the
// format text has neither of the two and counts as a gap.
func (p Parser) isGap(e Entry, r *Record) bool {
	if r.Event.Reason != event.GapReason || e.Metadata[event.FieldReason.Full().String()] != "" {
		return false
	}
	for name, value := range e.Labels {
		if f, ok := p.field(name); ok && f == event.FieldReason && value == event.OtherLabel {
			return false
		}
	}
	text := !strings.HasPrefix(e.Line, "{") && !isLogfmt(e.Line)
	return text || !r.ForgedGap()
}

// beside returns the fields that are kept beside the line.
func (p Parser) beside(e Entry) map[event.Field]string {
	b := make(map[event.Field]string, len(e.Metadata)+2)
	for name, value := range e.Metadata {
		if f, ok := event.ParseField(name); ok {
			b[f] = value
		}
	}
	for name, value := range e.Labels {
		f, ok := p.field(name)
		if value == event.OtherLabel && f != event.FieldNamespace {
			continue // the Event's own value, if there is one, is in the line or in full_<field>
		}
		if _, twice := b[f]; ok && !twice {
			b[f] = value
		}
	}
	// The label is not the Event's own value where the intake gave it another.
	for _, f := range event.LabelFields {
		if full, ok := b[f.Full()]; ok {
			b[f] = full
		}
	}
	return b
}

var defaultLabels = event.DefaultLabelFields()

func (p Parser) labels() map[string]string {
	if p.Labels != nil {
		return p.Labels
	}
	return defaultLabels
}

// field returns the field that a label was taken from.
func (p Parser) field(label string) (event.Field, bool) {
	name, ok := p.labels()[label]
	if !ok {
		return 0, false
	}
	return event.ParseField(name)
}

// draft is a record that is being put together.
type draft struct {
	record    *Record
	firstSeen time.Time
	counted   int32
	node      string
	component string

	// What is known already, to find its place in a sentence.
	reason, kind, name string
	metadata           bool // there is some beside the line
}

// beside completes what the line says.
func (d *draft) beside(b map[event.Field]string) {
	e := d.record.Event
	set := func(f event.Field, to *string) {
		if v, ok := b[f]; ok {
			*to = v
		}
	}
	set(event.FieldNamespace, &e.Namespace)
	set(event.FieldReason, &e.Reason)
	set(event.FieldKind, &e.InvolvedObject.Kind)
	set(event.FieldName, &e.InvolvedObject.Name)
	set(event.FieldType, &e.Type)
	set(event.FieldEventVersion, &e.ResourceVersion)
	set(event.FieldComponent, &d.component)
	set(event.FieldNode, &d.node)
	set(event.FieldUID, (*string)(&e.InvolvedObject.UID))
	set(event.FieldEventUID, (*string)(&e.UID))
	if n, err := strconv.ParseInt(b[event.FieldCount], 10, 32); err == nil {
		d.counted = int32(n)
	}
	// Both are derived from other fields, which a sentence does not have.
	if d.record.Value(event.FieldComponent) != d.component && d.component != "" {
		e.Source.Component = d.component
	}
	if d.record.Value(event.FieldNode) != d.node && d.node != "" {
		e.Source.Host = d.node
	}
	// The Event's own namespace is the object's, but for objects that have none.
	if e.Namespace != "" && !clusterScoped(e) {
		e.InvolvedObject.Namespace = e.Namespace
	}
}

func clusterScoped(e *corev1.Event) bool {
	return e.InvolvedObject.Kind == "Node" || e.InvolvedObject.Kind == "Namespace"
}

// times spreads the record's time, the count and the first time over the fields
// that an Event of either API has for them.
func (d *draft) times() {
	e, at := d.record.Event, d.record.Time
	first := d.firstSeen
	fine := first.Nanosecond() != 0
	series := !first.IsZero() && (d.counted <= 1 || fine || e.Source.Component == "")
	switch {
	case series:
		e.Series = &corev1.EventSeries{Count: d.counted, LastObservedTime: metav1.NewMicroTime(at)}
		e.EventTime = metav1.NewMicroTime(first)
	case d.counted != 0:
		e.Count = d.counted
		e.LastTimestamp = metav1.NewTime(at)
		e.FirstTimestamp = metav1.NewTime(first)
		if d.counted == 1 && first.IsZero() {
			e.FirstTimestamp = e.LastTimestamp
		}
	default:
		e.EventTime = metav1.NewMicroTime(at)
	}
}
