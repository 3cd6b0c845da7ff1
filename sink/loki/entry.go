package loki

import (
	"errors"
	"fmt"
	"strconv"
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

// Loki's default limits for an entry: max_line_size is 256 KiB, max_structured_metadata_size 64 KiB.
// Records have at most a dozen pairs of metadata (128 are allowed) and some attributes, of which
// package enrich bounds the values. So the bound of the other values, event.MaxMetadataValue, keeps
// the sum below the limit.
// https://github.com/grafana/loki/blob/v3.7.8/pkg/validation/limits.go
const maxLine = 256 << 10

// tag returns the tag of a field. All field numbers are below 16, so it is one byte, and faster
// than protowire.AppendTag. An Event has about forty.
func tag(number protowire.Number, kind protowire.Type) byte {
	return byte(protowire.EncodeTag(number, kind))
}

// encoder encodes records as entries of a push. It is safe for concurrent use.
type encoder struct {
	format.Encoder
	metadata   bool
	labels     event.LabelSet // of the stream
	attributes []string       // that are labels of the stream
}

// append appends a record as a field StreamAdapter.entries. The encoding depends on the record
// alone. If dst has the capacity, it allocates no more than the encoding of the line does.
func (enc encoder) append(dst []byte, r *event.Record) []byte {
	// The lengths in front of the line are known only after it, so that it is written
	// behind a gap and moved back.
	const gap = 48
	start := len(dst)
	dst = append(dst, make([]byte, gap)...)
	dst = enc.appendLine(dst, r)
	lineLength := len(dst) - start - gap
	if enc.metadata {
		dst = enc.appendMetadata(dst, r)
	}

	var buffer [gap]byte
	entry := appendTimestamp(buffer[:0], r.Time)
	entry = append(entry, tag(entryLine, protowire.BytesType))
	entry = protowire.AppendVarint(entry, uint64(lineLength))
	length := len(entry) + len(dst) - start - gap

	end := len(dst)
	head := append(dst[:start], tag(streamEntries, protowire.BytesType))
	head = protowire.AppendVarint(head, uint64(length))
	head = append(head, entry...)
	return append(head, dst[start+gap:end]...)
}

// appendTimestamp clamps times that are not a number of nanoseconds since 1970, which overflow in
// Loki. Loki rejects both ends of that range.
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

// appendLine appends the line of the record, truncated to Loki's limit. It truncates the message, so
// that the line can still be parsed, or the end of the line if other fields are too long.
func (enc encoder) appendLine(dst []byte, r *event.Record) []byte {
	start := len(dst)
	dst = enc.Append(dst, r)
	excess := len(dst) - start - maxLine
	if excess <= 0 {
		return dst
	}
	const markBytes = 64 // for the mark of truncate, escaped
	e, shorter := *r.Event, *r
	shorter.Event = &e
	message := r.Event.Message
	for keep := max(len(message)-excess-markBytes, len(message)/8); keep > 0; keep /= 2 {
		e.Message = truncate(message, keep)
		if line := enc.Append(dst[:start], &shorter); len(line)-start <= maxLine {
			return line
		}
	}
	dst = enc.Append(dst[:start], r)
	line := string(dst[start:])
	return append(dst[:start], truncate(line, maxLine-markBytes)...)
}

// truncate returns at most n bytes of s, in whole characters, and a mark with the number of bytes
// that were cut.
func truncate(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "… (" + strconv.Itoa(len(s)-n) + " bytes cut)"
}

// appendMetadata appends the fields EntryAdapter.structuredMetadata.
func (enc encoder) appendMetadata(dst []byte, r *event.Record) []byte {
	var buffer [24]event.Pair
	for _, p := range r.AppendMetadata(buffer[:0], enc.labels, enc.attributes...) {
		if len(p.Value) > event.MaxMetadataValue {
			p.Value = truncate(p.Value, event.MaxMetadataValue)
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

// entry is a decoded entry of a push.
type entry struct {
	time     time.Time
	line     string
	metadata []event.Pair
}

// metadataSize returns the size of the metadata as Loki counts it.
func (e *entry) metadataSize() (n int) {
	for _, p := range e.metadata {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

// countedSize returns the size of an encoded entry as Loki counts it:
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

// cutField splits the first field from a message that has only length-delimited fields with numbers
// below 16, such as an entry. It returns no rest of any other message.
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

// decode decodes an entry that encoder.append encoded.
func decode(b []byte) (e entry, err error) {
	body, err := singleField(b, streamEntries)
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

var errNotEntry = errors.New("not an entry of a push")

// singleField returns the value of the only field of b.
func singleField(b []byte, want protowire.Number) ([]byte, error) {
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

// fields calls visit for each field of a message, with one of its values set.
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

// appendRequest appends a PushRequest with one stream. Its entries are encoded by encoder.append.
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
