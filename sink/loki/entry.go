package loki

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// Field numbers of a push:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/push/push.proto
const (
	requestStreams = 1 // PushRequest.streams

	streamLabels  = 1 // StreamAdapter.labels
	streamEntries = 2 // StreamAdapter.entries

	entryTimestamp = 1 // EntryAdapter.timestamp
	entryLine      = 2 // EntryAdapter.line
	entryMetadata  = 3 // EntryAdapter.structuredMetadata

	pairName  = 1 // LabelPairAdapter.name
	pairValue = 2 // LabelPairAdapter.value

	timestampSeconds = 1 // google.protobuf.Timestamp.seconds
	timestampNanos   = 2 // google.protobuf.Timestamp.nanos
)

// What Loki accepts of an entry by default: max_line_size is 256KB of 1024
// bytes, max_structured_metadata_size 64KB. No record has more than a dozen
// pairs of metadata (128 are allowed), so this bound of their values keeps the
// sum below the limit.
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
const (
	maxLine          = 256 << 10
	maxMetadataValue = 4 << 10
)

// tag is what stands before a field. All numbers are below 16, so it is one byte:
// an Event has some forty, and protowire.AppendTag would write each as a varint.
func tag(number protowire.Number, kind protowire.Type) byte {
	return byte(protowire.EncodeTag(number, kind))
}

// encoder writes records as entries of a push. It is a pure function of the
// record, and safe for concurrent use.
type encoder struct {
	format.Encoder
	metadata bool
	labels   event.LabelSet // of the stream
}

// append appends the field StreamAdapter.entries with the record. It does not
// allocate if dst has room, beyond what the record's own encoding does.
func (enc encoder) append(dst []byte, r *event.Record) []byte {
	// The lengths in front are known only once all is written, so it is written
	// behind a gap and moved back.
	const gap = 48
	start := len(dst)
	dst = append(dst, make([]byte, gap)...)
	dst = enc.appendLine(dst, r)
	lineLength := len(dst) - start - gap
	if enc.metadata {
		dst = appendMetadata(dst, r, enc.labels)
	}

	var room [gap]byte
	entry := appendTimestamp(room[:0], r.Time)
	entry = append(entry, tag(entryLine, protowire.BytesType))
	entry = protowire.AppendVarint(entry, uint64(lineLength))
	length := len(entry) + len(dst) - start - gap

	end := len(dst)
	head := append(dst[:start], tag(streamEntries, protowire.BytesType))
	head = protowire.AppendVarint(head, uint64(length))
	head = append(head, entry...)
	return append(head, dst[start+gap:end]...)
}

// appendTimestamp clamps what is not a number of nanoseconds since 1970: Loki
// would compute with what is left of it after an overflow. It refuses both ends.
func appendTimestamp(dst []byte, t time.Time) []byte {
	const latest = 1<<63 - 1
	switch {
	case t.Before(time.Unix(0, 0)):
		t = time.Unix(0, 0)
	case t.After(time.Unix(0, latest)):
		t = time.Unix(0, latest)
	}
	seconds, nanos := uint64(t.Unix()), uint64(t.Nanosecond())
	length := 0
	if seconds != 0 {
		length += 1 + protowire.SizeVarint(seconds)
	}
	if nanos != 0 {
		length += 1 + protowire.SizeVarint(nanos)
	}
	dst = append(dst, tag(entryTimestamp, protowire.BytesType))
	dst = protowire.AppendVarint(dst, uint64(length))
	if seconds != 0 {
		dst = append(dst, tag(timestampSeconds, protowire.VarintType))
		dst = protowire.AppendVarint(dst, seconds)
	}
	if nanos != 0 {
		dst = append(dst, tag(timestampNanos, protowire.VarintType))
		dst = protowire.AppendVarint(dst, nanos)
	}
	return dst
}

// appendLine appends the record's line, cut to what Loki accepts. The message is
// what is cut, so that the line can still be parsed; where something else is too
// long, the end of the line.
func (enc encoder) appendLine(dst []byte, r *event.Record) []byte {
	start := len(dst)
	dst = enc.Append(dst, r)
	over := len(dst) - start - maxLine
	if over <= 0 {
		return dst
	}
	const room = 64 // for the mark, escaped
	e, shorter := *r.Event, *r
	shorter.Event = &e
	message := r.Event.Message
	for keep := max(len(message)-over-room, len(message)/8); keep > 0; keep /= 2 {
		e.Message = truncate(message, keep)
		if shorterLine := enc.Append(dst[:start], &shorter); len(shorterLine)-start <= maxLine {
			return shorterLine
		}
	}
	dst = enc.Append(dst[:start], r)
	line := string(dst[start:])
	return append(dst[:start], truncate(line, maxLine-room)...)
}

// truncate keeps at most n bytes of s, whole characters, and says how many it left
// out.
func truncate(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "… (" + strconv.Itoa(len(s)-n) + " bytes cut)"
}

// appendMetadata appends the fields EntryAdapter.structuredMetadata.
func appendMetadata(dst []byte, r *event.Record, labels event.LabelSet) []byte {
	var room [16]event.Pair
	for _, p := range r.AppendMetadata(room[:0], labels) {
		if len(p.Value) > maxMetadataValue {
			p.Value = truncate(p.Value, maxMetadataValue)
		}
		length := 2 + protowire.SizeBytes(len(p.Name)) + protowire.SizeBytes(len(p.Value))
		dst = append(dst, tag(entryMetadata, protowire.BytesType))
		dst = protowire.AppendVarint(dst, uint64(length))
		dst = append(dst, tag(pairName, protowire.BytesType))
		dst = protowire.AppendString(dst, p.Name)
		dst = append(dst, tag(pairValue, protowire.BytesType))
		dst = protowire.AppendString(dst, p.Value)
	}
	return dst
}

// entry is what was sent of a record, decoded.
type entry struct {
	time     time.Time
	line     string
	metadata []event.Pair
}

// metadataSize is what Loki counts of it.
func (e *entry) metadataSize() (n int) {
	for _, p := range e.metadata {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

// countedSize is what Loki counts of what encoder.append has written:
// https://github.com/grafana/loki/blob/v3.7.8/pkg/util/entry_size.go
func countedSize(b []byte) (bytes int) {
	_, body, _ := cutField(b)
	for len(body) > 0 {
		var number protowire.Number
		var value []byte
		number, value, body = cutField(body)
		switch number {
		case entryLine:
			bytes += len(value)
		case entryMetadata:
			_, name, rest := cutField(value)
			_, value, _ = cutField(rest)
			bytes += len(name) + len(value)
		}
	}
	return bytes
}

// cutField takes the first field off a message all of whose fields have a number
// below 16 and a length, as those of an entry do. Of anything else it leaves
// nothing.
func cutField(b []byte) (number protowire.Number, value, rest []byte) {
	if len(b) == 0 {
		return 0, nil, nil
	}
	value, n := protowire.ConsumeBytes(b[1:])
	if n < 0 {
		return 0, nil, nil
	}
	return protowire.Number(b[0] >> 3), value, b[1+n:]
}

// decode reads what encoder.append has written.
func decode(b []byte) (e entry, err error) {
	body, err := field(b, streamEntries)
	if err != nil {
		return e, fmt.Errorf("decode entry: %w", err)
	}
	e.time = time.Unix(0, 0).UTC()
	err = fields(body, func(number protowire.Number, value []byte, _ uint64) error {
		switch number {
		case entryTimestamp:
			var seconds, nanos int64
			err := fields(value, func(number protowire.Number, _ []byte, v uint64) error {
				switch number {
				case timestampSeconds:
					seconds = int64(v)
				case timestampNanos:
					nanos = int64(v)
				}
				return nil
			})
			e.time = time.Unix(seconds, nanos).UTC()
			return err
		case entryLine:
			e.line = string(value)
		case entryMetadata:
			var p event.Pair
			err := fields(value, func(number protowire.Number, value []byte, _ uint64) error {
				switch number {
				case pairName:
					p.Name = string(value)
				case pairValue:
					p.Value = string(value)
				}
				return nil
			})
			e.metadata = append(e.metadata, p)
			return err
		}
		return nil
	})
	if err != nil {
		return e, fmt.Errorf("decode entry: %w", err)
	}
	return e, nil
}

var errNotEntry = errors.New("it is not a push entry")

// field returns the value of the only field of b.
func field(b []byte, want protowire.Number) ([]byte, error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != want || kind != protowire.BytesType {
		return nil, errNotEntry
	}
	value, m := protowire.ConsumeBytes(b[n:])
	if m < 0 || n+m != len(b) {
		return nil, errNotEntry
	}
	return value, nil
}

// fields calls visit for each field of a message; of the values, one is set.
func fields(b []byte, visit func(number protowire.Number, value []byte, v uint64) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errNotEntry
		}
		b = b[n:]
		var value []byte
		var v uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		default:
			return errNotEntry
		}
		if n < 0 {
			return errNotEntry
		}
		b = b[n:]
		if err := visit(number, value, v); err != nil {
			return err
		}
	}
	return nil
}

// appendRequest appends a PushRequest with one stream. Entries are written by
// encoder.append.
func appendRequest(dst []byte, labels string, entries ...[]byte) []byte {
	length := 1 + protowire.SizeBytes(len(labels))
	for _, e := range entries {
		length += len(e)
	}
	dst = append(dst, tag(requestStreams, protowire.BytesType))
	dst = protowire.AppendVarint(dst, uint64(length))
	dst = append(dst, tag(streamLabels, protowire.BytesType))
	dst = protowire.AppendString(dst, labels)
	for _, e := range entries {
		dst = append(dst, e...)
	}
	return dst
}

// excerpt makes a line of what a server or a record says, for a log or an error.
func excerpt(s string, most int) string {
	s = s[:min(len(s), 4*most)]
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	s = strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
	if len(s) > most {
		s = truncate(s, most)
	}
	return s
}
