package event

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Decode returns the Event that b is in protobuf, as corev1.Event.Unmarshal
// would, but for managedFields: at most one of them is left, with nothing but
// the newest time, which is all that New reads. It keeps no reference to b.
//
// Decoding takes most of all that is allocated for an Event: a string for each
// of some twenty fields. Here all are parts of one string. An Event with fields
// that recorders do not write, labels for example, is left to Unmarshal.
func Decode(b []byte) (*corev1.Event, error) {
	e := &corev1.Event{}
	if err := decodeInto(e, b, string(b)); err != nil {
		return nil, err
	}
	return e, nil
}

// decodeInto decodes b, which text is too, into an empty Event.
func decodeInto(e *corev1.Event, b []byte, text string) error {
	d := decoder{bytes: b, text: text}
	if d.event(e) == nil {
		return nil
	}
	*e = corev1.Event{}
	if err := e.Unmarshal(b); err != nil {
		return err
	}
	all := e.ManagedFields
	e.ManagedFields = nil
	for i := range all {
		keepNewest(e, all[i].Time)
	}
	return nil
}

// keepNewest keeps t as the only one of managedFields, unless what is there is
// newer.
func keepNewest(e *corev1.Event, t *metav1.Time) {
	switch {
	case t == nil:
	case e.ManagedFields == nil:
		e.ManagedFields = []metav1.ManagedFieldsEntry{{Time: t}}
	case t.After(e.ManagedFields[0].Time.Time):
		e.ManagedFields[0].Time = t
	}
}

// errUncommon says that an Event is left to Unmarshal, which also knows what is
// wrong with one.
var errUncommon = errors.New("not a plain event")

// Tags of the fields that are read, each its number and its type, from the
// generated.proto of k8s.io/api and k8s.io/apimachinery.
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

// decoder decodes the parts of a message.
type decoder struct {
	bytes []byte
	text  string // the same
}

// part is the value of a field: where it is in the message, or a number.
type part struct {
	from, to int
	number   uint64
}

func (d *decoder) string(p part) string { return d.text[p.from:p.to] }
func (d *decoder) slice(p part) []byte  { return d.bytes[p.from:p.to] }

func (d *decoder) event(e *corev1.Event) error {
	return d.fields(part{to: len(d.bytes)}, func(tag uint64, p part) error {
		switch tag {
		case eventMetadata:
			return d.metadata(e, p)
		case eventInvolvedObject:
			return d.reference(&e.InvolvedObject, p)
		case eventReason:
			e.Reason = d.string(p)
		case eventMessage:
			e.Message = d.string(p)
		case eventSource:
			return d.source(&e.Source, p)
		case eventFirstTimestamp:
			return e.FirstTimestamp.Unmarshal(d.slice(p))
		case eventLastTimestamp:
			return e.LastTimestamp.Unmarshal(d.slice(p))
		case eventCount:
			e.Count = int32(p.number)
		case eventType:
			e.Type = d.string(p)
		case eventEventTime:
			return e.EventTime.Unmarshal(d.slice(p))
		case eventSeries:
			if e.Series == nil {
				e.Series = &corev1.EventSeries{}
			}
			return e.Series.Unmarshal(d.slice(p))
		case eventAction:
			e.Action = d.string(p)
		case eventRelated:
			if e.Related == nil {
				e.Related = &corev1.ObjectReference{}
			}
			return d.reference(e.Related, p)
		case eventReportingController:
			e.ReportingController = d.string(p)
		case eventReportingInstance:
			e.ReportingInstance = d.string(p)
		default:
			return errUncommon
		}
		return nil
	})
}

func (d *decoder) metadata(e *corev1.Event, p part) error {
	m := &e.ObjectMeta
	return d.fields(p, func(tag uint64, p part) error {
		switch tag {
		case metaName:
			m.Name = d.string(p)
		case metaGenerateName:
			m.GenerateName = d.string(p)
		case metaNamespace:
			m.Namespace = d.string(p)
		case metaSelfLink:
			if p.from < p.to { // no API server fills it any more
				return errUncommon
			}
		case metaUID:
			m.UID = types.UID(d.string(p))
		case metaResourceVersion:
			m.ResourceVersion = d.string(p)
		case metaGeneration:
			m.Generation = int64(p.number)
		case metaCreationTimestamp:
			return m.CreationTimestamp.Unmarshal(d.slice(p))
		case metaManagedFields:
			return d.managedFields(e, p)
		default:
			return errUncommon
		}
		return nil
	})
}

func (d *decoder) managedFields(e *corev1.Event, p part) error {
	return d.fields(p, func(tag uint64, p part) error {
		switch tag {
		case managedFieldsTime:
			t := &metav1.Time{}
			if err := t.Unmarshal(d.slice(p)); err != nil {
				return err
			}
			keepNewest(e, t)
		case managedFieldsManager, managedFieldsOperation, managedFieldsAPIVersion,
			managedFieldsType, managedFieldsV1, managedFieldsSubresource:
		default:
			return errUncommon
		}
		return nil
	})
}

func (d *decoder) source(s *corev1.EventSource, p part) error {
	return d.fields(p, func(tag uint64, p part) error {
		switch tag {
		case sourceComponent:
			s.Component = d.string(p)
		case sourceHost:
			s.Host = d.string(p)
		default:
			return errUncommon
		}
		return nil
	})
}

func (d *decoder) reference(r *corev1.ObjectReference, p part) error {
	return d.fields(p, func(tag uint64, p part) error {
		switch tag {
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
		return nil
	})
}

// fields calls visit for each field of the message in a part, until it returns
// an error.
func (d *decoder) fields(in part, visit func(tag uint64, p part) error) error {
	for at := in.from; at < in.to; {
		tag, n := protowire.ConsumeVarint(d.bytes[at:in.to])
		if n < 0 {
			return errUncommon
		}
		at += n
		v, n := protowire.ConsumeVarint(d.bytes[at:in.to])
		if n < 0 {
			return errUncommon
		}
		at += n
		p := part{number: v}
		switch tag & 7 {
		case number:
		case message:
			if v > uint64(in.to-at) {
				return errUncommon
			}
			p.from, p.to = at, at+int(v)
			at = p.to
		default:
			return errUncommon
		}
		if err := visit(tag, p); err != nil {
			return err
		}
	}
	return nil
}
