package event

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
)

// Numbers of the fields of a stored record. It is a protobuf message: fields
// may be added, none may change its meaning. Unknown ones are skipped.
const (
	fieldSource       = 1
	fieldEpoch        = 2
	fieldVersion      = 3
	fieldListed       = 4
	fieldPositionTime = 5 // seconds since 1970
	fieldEvent        = 6 // core/v1 Event
	fieldTime         = 7 // nanoseconds since 1970
	fieldObservedTime = 8 // nanoseconds since 1970
	fieldReasonLabel  = 9 // absent: the Event's own reason
	fieldGap          = 10
	fieldTo           = 11
)

// AppendBinary appends the form in which a record is journaled. It never fails;
// the error is for encoding.BinaryAppender.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	b = appendString(b, fieldSource, r.Source)
	if r.Position.Epoch != (Epoch{}) {
		b = appendString(b, fieldEpoch, r.Position.Epoch.String())
	}
	b = appendUint(b, fieldVersion, r.Position.Version)
	b = appendUint(b, fieldListed, r.Position.Listed)
	if !r.Position.Time.IsZero() {
		b = appendFixed(b, fieldPositionTime, r.Position.Time.Unix())
	}
	if r.Event != nil {
		b = protowire.AppendTag(b, fieldEvent, protowire.BytesType)
		size := r.Event.Size()
		b = protowire.AppendVarint(b, uint64(size))
		start := len(b)
		b = append(b, make([]byte, size)...)
		if _, err := r.Event.MarshalToSizedBuffer(b[start:]); err != nil {
			return b, fmt.Errorf("encode event %s/%s: %w", r.Event.Namespace, r.Event.Name, err)
		}
		if r.ReasonLabel != r.Event.Reason {
			b = appendString(b, fieldReasonLabel, r.ReasonLabel)
		}
	}
	if !r.Time.IsZero() {
		b = appendFixed(b, fieldTime, r.Time.UnixNano())
	}
	if !r.ObservedTime.IsZero() {
		b = appendFixed(b, fieldObservedTime, r.ObservedTime.UnixNano())
	}
	if r.Gap {
		b = appendUint(b, fieldGap, 1)
	}
	b = appendString(b, fieldTo, r.To)
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote. It keeps no reference to b.
func (r *Record) UnmarshalBinary(b []byte) error {
	*r = Record{}
	reasonLabel := ""
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("decode record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		var (
			u   uint64
			raw []byte
		)
		switch typ {
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			u, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("decode record: field %d: %w", num, protowire.ParseError(n))
		}
		b = b[n:]
		var err error
		switch num {
		case fieldSource:
			r.Source = string(raw)
		case fieldEpoch:
			r.Position.Epoch, err = ParseEpoch(string(raw))
		case fieldVersion:
			r.Position.Version = u
		case fieldListed:
			r.Position.Listed = u
		case fieldPositionTime:
			r.Position.Time = time.Unix(int64(u), 0).UTC()
		case fieldEvent:
			r.Event = &corev1.Event{}
			err = r.Event.Unmarshal(raw)
		case fieldTime:
			r.Time = time.Unix(0, int64(u)).UTC()
		case fieldObservedTime:
			r.ObservedTime = time.Unix(0, int64(u)).UTC()
		case fieldReasonLabel:
			reasonLabel = string(raw)
		case fieldGap:
			r.Gap = u != 0
		case fieldTo:
			r.To = string(raw)
		}
		if err != nil {
			return fmt.Errorf("decode record: field %d: %w", num, err)
		}
	}
	switch {
	case r.Event == nil && reasonLabel != "":
		return errors.New("decode record: a reason label without an event")
	case reasonLabel != "":
		r.ReasonLabel = reasonLabel
	case r.Event != nil:
		r.ReasonLabel = r.Event.Reason
	}
	return nil
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendFixed(b []byte, num protowire.Number, v int64) []byte {
	b = protowire.AppendTag(b, num, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, uint64(v))
}
