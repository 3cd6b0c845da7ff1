package event

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
)

// Field numbers of a stored record, a protobuf message. Fields may be added, but must not
// change. Unknown fields are skipped.
const (
	fieldSource       = 1
	fieldEpoch        = 2
	fieldVersion      = 3
	fieldListVersion  = 4
	fieldPositionTime = 5 // Timestamp
	fieldEvent        = 6 // core/v1 Event
	fieldTime         = 7 // Timestamp
	fieldObservedTime = 8 // Timestamp
	fieldReasonLabel  = 9 // deprecated, read only: the reason is not kept as a label
	fieldGap          = 10
	fieldOnlySink     = 11
	fieldLabels       = 12 // two bytes for each decision, Set and Kept
	fieldLevel        = 13 // Level, unless it is that of the type
	fieldAttribute    = 14 // Pair, repeated
)

// Field numbers of a Pair.
const (
	fieldName  = 1
	fieldValue = 2
)

// Field numbers of google.protobuf.Timestamp. A reporter's time may be out of the range of
// int64 nanoseconds.
const (
	fieldSeconds = 1
	fieldNanos   = 2
)

// AppendBinary appends the binary form of the record. It implements
// encoding.BinaryAppender.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	b = appendString(b, fieldSource, r.Source)
	b = appendEpoch(b, r.Position.Epoch)
	b = appendUint(b, fieldVersion, r.Position.Version)
	b = appendUint(b, fieldListVersion, r.Position.ListVersion)
	b = appendTimestamp(b, fieldPositionTime, r.Position.Time)
	if r.Event != nil {
		b = protowire.AppendTag(b, fieldEvent, protowire.BytesType)
		size := r.Event.Size()
		b = protowire.AppendVarint(b, uint64(size))
		start := len(b)
		b = slices.Grow(b, size)[:start+size]
		if _, err := r.Event.MarshalToSizedBuffer(b[start:]); err != nil {
			return b, fmt.Errorf("encode event %s/%s: %w", r.Event.Namespace, r.Event.Name, err)
		}
	}
	b = appendTimestamp(b, fieldTime, r.Time)
	b = appendTimestamp(b, fieldObservedTime, r.ObservedTime)
	if r.Gap {
		b = appendUint(b, fieldGap, 1)
	}
	b = appendString(b, fieldOnlySink, r.OnlySink)
	b = appendUint(b, fieldLevel, uint64(r.Level))
	b = r.Decisions.append(b)
	for _, p := range r.Attributes {
		b = protowire.AppendTag(b, fieldAttribute, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(2+protowire.SizeBytes(len(p.Name))+protowire.SizeBytes(len(p.Value))))
		b = protowire.AppendTag(b, fieldName, protowire.BytesType)
		b = protowire.AppendString(b, p.Name)
		b = protowire.AppendTag(b, fieldValue, protowire.BytesType)
		b = protowire.AppendString(b, p.Value)
	}
	return b, nil
}

// UnmarshalBinary reads the binary form. It keeps no reference to b. Source, cluster and
// sink that are equal to the previous value of r are not allocated again.
func (r *Record) UnmarshalBinary(b []byte) error {
	return r.unmarshal(b, nil, Decode, func(b []byte) string { return string(b) })
}

// Reader reads records in binary form, each into the memory of the previous one. The zero
// Reader is ready. It is not safe for concurrent use.
type Reader struct {
	record     Record
	event      corev1.Event
	newest     newest
	attributes []Pair
}

// Read reads the binary form. The record is valid until the next Read, and only while b
// does not change, because the Event's text is b. Read does not allocate for an Event of
// common fields.
func (r *Reader) Read(b []byte) (*Record, error) {
	if err := r.record.unmarshal(b, r.attributes[:0], r.decode, text); err != nil {
		return nil, err
	}
	if r.record.Attributes != nil {
		r.attributes = r.record.Attributes
	}
	return &r.record, nil
}

// text returns a string that shares the memory of b.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (r *Reader) decode(b []byte) (*corev1.Event, error) {
	r.event, r.newest = corev1.Event{}, newest{}
	return &r.event, decodeInto(&r.event, &r.newest, b, text(b))
}

// unmarshal reads the binary form. Attributes are appended to attributes.
func (r *Record) unmarshal(b []byte, attributes []Pair, decode func([]byte) (*corev1.Event, error), text func([]byte) string) error {
	previous := *r
	*r = Record{}
	reasonLabel := false
	err := eachField(b, func(num protowire.Number, u uint64, raw []byte) (err error) {
		switch num {
		case fieldSource:
			r.Source = reuse(previous.Source, raw)
		case fieldEpoch:
			r.Position.Epoch, err = parseEpoch(raw, previous.Position.Epoch)
		case fieldVersion:
			r.Position.Version = u
		case fieldListVersion:
			r.Position.ListVersion = u
		case fieldPositionTime:
			r.Position.Time, err = parseTimestamp(raw)
		case fieldEvent:
			r.Event, err = decode(raw)
		case fieldTime:
			r.Time, err = parseTimestamp(raw)
		case fieldObservedTime:
			r.ObservedTime, err = parseTimestamp(raw)
		case fieldReasonLabel:
			reasonLabel = true
		case fieldGap:
			r.Gap = u != 0
		case fieldOnlySink:
			r.OnlySink = reuse(previous.OnlySink, raw)
		case fieldLevel:
			if u < uint64(len(levelNames)) {
				r.Level = Level(u)
			}
		case fieldLabels:
			r.Decisions, err = parseLabels(raw)
		case fieldAttribute:
			var p Pair
			p, err = parsePair(raw, text)
			attributes = append(attributes, p)
			r.Attributes = attributes
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("decode record: %w", err)
	}
	if reasonLabel && r.Decisions == (LabelDecisions{}) {
		r.Decisions[0] = LabelDecision{DefaultLabels, DefaultLabels &^ LabelReason}
	}
	return nil
}

// append appends the decisions, if there are any.
func (l *LabelDecisions) append(b []byte) []byte {
	n := 0
	for n < len(l) && l[n].Set != 0 {
		n++
	}
	if n == 0 {
		return b
	}
	b = protowire.AppendTag(b, fieldLabels, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(2*n))
	for _, d := range l[:n] {
		b = append(b, byte(d.Set), byte(d.Kept))
	}
	return b
}

func parseLabels(b []byte) (l LabelDecisions, err error) {
	if len(b)%2 != 0 || len(b) > 2*len(l) {
		return l, fmt.Errorf("%d bytes are not decisions about labels", len(b))
	}
	for i := range len(b) / 2 {
		l[i] = LabelDecision{LabelSet(b[2*i]), LabelSet(b[2*i+1])}
		if l[i].Set == 0 || l[i].Kept&^l[i].Set != 0 {
			return l, fmt.Errorf("%x are not decisions about labels", b)
		}
	}
	return l, nil
}

func parsePair(b []byte, text func([]byte) string) (p Pair, err error) {
	err = eachField(b, func(num protowire.Number, _ uint64, raw []byte) error {
		switch num {
		case fieldName:
			p.Name = text(raw)
		case fieldValue:
			p.Value = text(raw)
		}
		return nil
	})
	return p, err
}

// reuse returns b as a string, without allocating if it is equal to the previous one.
func reuse(previous string, b []byte) string {
	if string(b) == previous {
		return previous
	}
	return string(b)
}

// parseEpoch parses an epoch, without allocating if it is equal to the previous one.
func parseEpoch(b []byte, previous Epoch) (Epoch, error) {
	var buf [64]byte
	if string(b) == string(previous.append(buf[:0])) {
		return previous, nil
	}
	return ParseEpoch(string(b))
}

// eachField calls f for each field of a message, with its number or its bytes. It skips
// fields of other wire types, which a newer version may have written.
func eachField(b []byte, f func(num protowire.Number, u uint64, raw []byte) error) error {
	for len(b) > 0 {
		if num, raw, n := shortField(b); n > 0 {
			b = b[n:]
			if err := f(num, 0, raw); err != nil {
				return fmt.Errorf("field %d: %w", num, err)
			}
			continue
		}
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var (
			u   uint64
			raw []byte
		)
		switch typ {
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
			num = 0
		}
		if n < 0 {
			return fmt.Errorf("field %d: %w", num, protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(num, u, raw); err != nil {
			return fmt.Errorf("field %d: %w", num, err)
		}
	}
	return nil
}

// shortField reads a field of the most common form: bytes, with a tag of one byte and a
// length of one or two. For any other field it returns n = 0.
func shortField(b []byte) (num protowire.Number, raw []byte, n int) {
	if len(b) < 3 || b[0]&7 != byte(protowire.BytesType) || b[0] < 1<<3 || b[0] >= 0x80 {
		return 0, nil, 0
	}
	size, start := int(b[1]), 2
	if size >= 0x80 {
		if b[2] >= 0x80 {
			return 0, nil, 0
		}
		size, start = size&0x7f|int(b[2])<<7, 3
	}
	if size > len(b)-start {
		return 0, nil, 0
	}
	return protowire.Number(b[0] >> 3), b[start : start+size], start + size
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// appendEpoch appends Epoch.String without allocating.
func appendEpoch(b []byte, e Epoch) []byte {
	if e == (Epoch{}) {
		return b
	}
	var buf [64]byte
	b = protowire.AppendTag(b, fieldEpoch, protowire.BytesType)
	return protowire.AppendBytes(b, e.append(buf[:0]))
}

// append appends String.
func (e Epoch) append(b []byte) []byte {
	b = append(b, cmp.Or(e.Cluster, unknownCluster)...)
	b = append(b, '/')
	return strconv.AppendInt(b, int64(e.Restores), 10)
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendTimestamp(b []byte, num protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	seconds, nanos := uint64(t.Unix()), uint64(t.Nanosecond())
	size := 0
	if seconds != 0 {
		size += protowire.SizeTag(fieldSeconds) + protowire.SizeVarint(seconds)
	}
	if nanos != 0 {
		size += protowire.SizeTag(fieldNanos) + protowire.SizeVarint(nanos)
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendUint(b, fieldSeconds, seconds)
	return appendUint(b, fieldNanos, nanos)
}

func parseTimestamp(b []byte) (time.Time, error) {
	var seconds, nanos int64
	err := eachField(b, func(num protowire.Number, u uint64, _ []byte) error {
		switch num {
		case fieldSeconds:
			seconds = int64(u)
		case fieldNanos:
			if u >= uint64(time.Second) {
				return fmt.Errorf("%d nanoseconds are out of range", u)
			}
			nanos = int64(u)
		}
		return nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("timestamp: %w", err)
	}
	return time.Unix(seconds, nanos).UTC(), nil
}
