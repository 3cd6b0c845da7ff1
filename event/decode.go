package event

import (
	"errors"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Decode decodes an Event from protobuf like corev1.Event.Unmarshal, except that it
// reduces managedFields to at most one entry, with the newest time, because New reads
// nothing else. It keeps no reference to b.
//
// Unmarshal allocates a string for each of some twenty fields, which is most of the
// memory allocated for an Event. Here all of them share one string. Decode leaves Events
// with fields that recorders do not write, such as labels, to Unmarshal.
func Decode(b []byte) (*corev1.Event, error) {
	r := &struct {
		event  corev1.Event
		newest newest
	}{}
	return &r.event, decodeInto(&r.event, &r.newest, b, string(b))
}

// DecodeBuffer is reusable memory for one decoded Event. The zero DecodeBuffer is ready.
type DecodeBuffer struct {
	event  corev1.Event
	newest newest
	text   []byte
}

// Decode is like the function Decode, but the Event is valid only until the next call.
// Decode does not allocate for an Event of common fields that is not larger than an
// earlier one.
func (d *DecodeBuffer) Decode(b []byte) (*corev1.Event, error) {
	return d.DecodeAt(b, time.Time{})
}

// DecodeAt is Decode for an Event that is passed to NewAt with this clock.
func (d *DecodeBuffer) DecodeAt(b []byte, clock time.Time) (*corev1.Event, error) {
	d.text = append(d.text[:0], b...)
	d.event, d.newest = corev1.Event{}, newest{clock: clock}
	return &d.event, decodeInto(&d.event, &d.newest, d.text, unsafe.String(unsafe.SliceData(d.text), len(d.text)))
}

// newest is the reduced managedFields.
type newest struct {
	entry  [1]metav1.ManagedFieldsEntry
	time   metav1.Time
	clock  time.Time // see PlausibleTime
	forged bool      // a time was not plausible
}

// add keeps t if it is plausible and newer than the others.
func (n *newest) add(t metav1.Time) {
	if !PlausibleTime(t.Unix(), n.clock) {
		n.forged = true
		return
	}
	if n.entry[0].Time == nil || t.After(n.time.Time) {
		n.time = t
		n.entry[0].Time = &n.time
	}
}

// decodeInto decodes b into an empty Event. text is the same bytes as a string, which the
// Event refers to, as it does to n.
func decodeInto(e *corev1.Event, n *newest, b []byte, text string) error {
	d := decoder{bytes: b, text: text, newest: n}
	if d.event(e) != nil {
		*e, *n = corev1.Event{}, newest{clock: n.clock}
		if err := e.Unmarshal(b); err != nil {
			return err
		}
		for _, entry := range e.ManagedFields {
			if entry.Time != nil {
				n.add(*entry.Time)
			}
		}
		e.ManagedFields = nil
	}
	if n.forged && n.entry[0].Time == nil {
		n.add(e.CreationTimestamp)
	}
	if n.entry[0].Time != nil {
		e.ManagedFields = n.entry[:]
	}
	return nil
}

// errUncommon is the reason to leave an Event to Unmarshal, which also reports malformed
// ones.
var errUncommon = errors.New("not a plain event")

// Tags (number and type) of the fields that are read, from generated.proto of k8s.io/api
// and k8s.io/apimachinery.
const (
	number  = 0 // a varint
	message = 2 // or a string

	eventMetadata            = 1<<3 | message
	eventInvolvedObject      = 2<<3 | message
	eventReason              = 3<<3 | message
	eventMessage             = 4<<3 | message
	eventSource              = 5<<3 | message
	eventFirstTimestamp      = 6<<3 | message
	eventLastTimestamp       = 7<<3 | message
	eventCount               = 8<<3 | number
	eventType                = 9<<3 | message
	eventEventTime           = 10<<3 | message
	eventSeries              = 11<<3 | message
	eventAction              = 12<<3 | message
	eventRelated             = 13<<3 | message
	eventReportingController = 14<<3 | message
	eventReportingInstance   = 15<<3 | message

	metaName              = 1<<3 | message
	metaGenerateName      = 2<<3 | message
	metaNamespace         = 3<<3 | message
	metaSelfLink          = 4<<3 | message
	metaUID               = 5<<3 | message
	metaResourceVersion   = 6<<3 | message
	metaGeneration        = 7<<3 | number
	metaCreationTimestamp = 8<<3 | message
	metaManagedFields     = 17<<3 | message

	managedFieldsManager     = 1<<3 | message
	managedFieldsOperation   = 2<<3 | message
	managedFieldsAPIVersion  = 3<<3 | message
	managedFieldsTime        = 4<<3 | message
	managedFieldsType        = 6<<3 | message
	managedFieldsV1          = 7<<3 | message
	managedFieldsSubresource = 8<<3 | message

	sourceComponent = 1<<3 | message
	sourceHost      = 2<<3 | message

	referenceKind            = 1<<3 | message
	referenceNamespace       = 2<<3 | message
	referenceName            = 3<<3 | message
	referenceUID             = 4<<3 | message
	referenceAPIVersion      = 5<<3 | message
	referenceResourceVersion = 6<<3 | message
	referenceFieldPath       = 7<<3 | message
)

// decoder decodes the fields of a message.
type decoder struct {
	bytes  []byte
	text   string // the same
	newest *newest
}

// part is the value of a field: a range of the message, or a number.
type part struct {
	from, to int
	number   uint64
}

func (d *decoder) string(p part) string { return d.text[p.from:p.to] }
func (d *decoder) slice(p part) []byte  { return d.bytes[p.from:p.to] }

func (d *decoder) event(e *corev1.Event) error {
	fields := d.fields(part{to: len(d.bytes)})
	for fields.next() {
		var err error
		switch p := fields.value; fields.tag {
		case eventMetadata:
			err = d.metadata(e, p)
		case eventInvolvedObject:
			err = d.reference(&e.InvolvedObject, p)
		case eventReason:
			e.Reason = d.string(p)
		case eventMessage:
			e.Message = d.string(p)
		case eventSource:
			err = d.source(&e.Source, p)
		case eventFirstTimestamp:
			err = e.FirstTimestamp.Unmarshal(d.slice(p))
		case eventLastTimestamp:
			err = e.LastTimestamp.Unmarshal(d.slice(p))
		case eventCount:
			e.Count = int32(p.number)
		case eventType:
			e.Type = d.string(p)
		case eventEventTime:
			err = e.EventTime.Unmarshal(d.slice(p))
		case eventSeries:
			if e.Series == nil {
				e.Series = &corev1.EventSeries{}
			}
			err = e.Series.Unmarshal(d.slice(p))
		case eventAction:
			e.Action = d.string(p)
		case eventRelated:
			if e.Related == nil {
				e.Related = &corev1.ObjectReference{}
			}
			err = d.reference(e.Related, p)
		case eventReportingController:
			e.ReportingController = d.string(p)
		case eventReportingInstance:
			e.ReportingInstance = d.string(p)
		default:
			err = errUncommon
		}
		if err != nil {
			return err
		}
	}
	return fields.err
}

func (d *decoder) metadata(e *corev1.Event, p part) error {
	m := &e.ObjectMeta
	fields := d.fields(p)
	for fields.next() {
		var err error
		switch p := fields.value; fields.tag {
		case metaName:
			m.Name = d.string(p)
		case metaGenerateName:
			m.GenerateName = d.string(p)
		case metaNamespace:
			m.Namespace = d.string(p)
		case metaSelfLink:
			if p.from < p.to { // current API servers leave it empty
				err = errUncommon
			}
		case metaUID:
			m.UID = types.UID(d.string(p))
		case metaResourceVersion:
			m.ResourceVersion = d.string(p)
		case metaGeneration:
			m.Generation = int64(p.number)
		case metaCreationTimestamp:
			err = m.CreationTimestamp.Unmarshal(d.slice(p))
		case metaManagedFields:
			err = d.managedFields(p)
		default:
			err = errUncommon
		}
		if err != nil {
			return err
		}
	}
	return fields.err
}

func (d *decoder) managedFields(p part) error {
	fields := d.fields(p)
	for fields.next() {
		switch p := fields.value; fields.tag {
		case managedFieldsTime:
			var t metav1.Time
			if err := t.Unmarshal(d.slice(p)); err != nil {
				return err
			}
			d.newest.add(t)
		case managedFieldsManager, managedFieldsOperation, managedFieldsAPIVersion,
			managedFieldsType, managedFieldsV1, managedFieldsSubresource:
		default:
			return errUncommon
		}
	}
	return fields.err
}

func (d *decoder) source(s *corev1.EventSource, p part) error {
	fields := d.fields(p)
	for fields.next() {
		switch p := fields.value; fields.tag {
		case sourceComponent:
			s.Component = d.string(p)
		case sourceHost:
			s.Host = d.string(p)
		default:
			return errUncommon
		}
	}
	return fields.err
}

func (d *decoder) reference(r *corev1.ObjectReference, p part) error {
	fields := d.fields(p)
	for fields.next() {
		switch p := fields.value; fields.tag {
		case referenceKind:
			r.Kind = d.string(p)
		case referenceNamespace:
			r.Namespace = d.string(p)
		case referenceName:
			r.Name = d.string(p)
		case referenceUID:
			r.UID = types.UID(d.string(p))
		case referenceAPIVersion:
			r.APIVersion = d.string(p)
		case referenceResourceVersion:
			r.ResourceVersion = d.string(p)
		case referenceFieldPath:
			r.FieldPath = d.string(p)
		default:
			return errUncommon
		}
	}
	return fields.err
}

// fields iterates over the fields of a message.
type fields struct {
	bytes  []byte
	at, to int
	tag    uint64
	value  part
	err    error
}

func (d *decoder) fields(in part) fields { return fields{bytes: d.bytes, at: in.from, to: in.to} }

// next advances to the next field. It returns false at the end of the message, and on an
// error, which it stores in err.
func (f *fields) next() bool {
	b := f.bytes[f.at:f.to]
	if len(b) == 0 {
		return false
	}
	var v uint64
	if len(b) > 1 && b[0] < 0x80 && b[1] < 0x80 { // the common case
		f.tag, v = uint64(b[0]), uint64(b[1])
		f.at += 2
	} else {
		f.tag = f.varint()
		v = f.varint()
	}
	switch {
	case f.err != nil:
		return false
	case f.tag&7 == number:
		f.value = part{number: v}
		return true
	case f.tag&7 != message || v > uint64(f.to-f.at):
		f.err = errUncommon
		return false
	}
	f.value = part{from: f.at, to: f.at + int(v)}
	f.at = f.value.to
	return true
}

func (f *fields) varint() uint64 {
	v, n := protowire.ConsumeVarint(f.bytes[f.at:f.to])
	if n < 0 {
		f.err = errUncommon
		return 0
	}
	f.at += n
	return v
}
