package watch

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hindsight-events/hindsight/event"
)

// Fields read without decoding the Event, from the generated.proto of
// k8s.io/api/core/v1 and k8s.io/apimachinery/pkg/apis/meta/v1.
const (
	eventMetadata         = 1
	metaResourceVersion   = 6
	metaCreationTimestamp = 8
	metaManagedFields     = 17
	managedFieldsTime     = 4
	timeSeconds           = 1
)

// eventMeta is what has to be known of a state before, or instead of, decoding it.
type eventMeta struct {
	version uint64
	created int64 // seconds since 1970 by the API server's clock
	written int64 // the same of the last write, as far as that is known
}

// errStop ends eachField before the end of the message.
var errStop = errors.New("found")

// parseMeta reads the metadata of an Event in protobuf, which comes first. What follows
// is not looked at. Times of managedFields that are impossible by the clock
// (event.Possible) are ignored; a zero clock ignores none.
func parseMeta(raw []byte, clock time.Time) (eventMeta, error) {
	var m eventMeta
	var managed int64
	var version []byte
	err := eachField(raw, func(num protowire.Number, metadata []byte) error {
		if num != eventMetadata {
			return nil
		}
		err := eachField(metadata, func(num protowire.Number, b []byte) (err error) {
			switch num {
			case metaResourceVersion:
				version = b
			case metaCreationTimestamp:
				m.created, err = parseSeconds(b)
			case metaManagedFields:
				err = eachField(b, func(num protowire.Number, b []byte) error {
					if num != managedFieldsTime {
						return nil
					}
					t, err := parseSeconds(b)
					if event.Possible(t, clock) {
						managed = max(managed, t)
					}
					return err
				})
			}
			return err
		})
		return cmp.Or(err, errStop)
	})
	if err != nil && err != errStop {
		return eventMeta{}, fmt.Errorf("read metadata of event: %w", err)
	}
	m.version, err = strconv.ParseUint(string(version), 10, 64)
	if err != nil || m.version == 0 {
		return eventMeta{}, fmt.Errorf("read metadata of event: resourceVersion %q is not a version", version)
	}
	m.written = max(managed, m.created)
	return m, nil
}

// stripManagedFields appends to dst an Event that peek has read, without what event.Decode
// leaves out of it: managedFields, a third of an Event, but for their times.
func stripManagedFields(dst, raw []byte) []byte {
	num, typ, n := protowire.ConsumeTag(raw)
	if num != eventMetadata || typ != protowire.BytesType {
		return append(dst, raw...) // no API server writes it like that
	}
	metadata, m := protowire.ConsumeBytes(raw[n:])
	rest := raw[n+m:]

	var buf [1 << 10]byte // on the stack, unless there is more
	kept := buf[:0]
	for len(metadata) > 0 {
		num, typ, n := protowire.ConsumeTag(metadata)
		size := n + protowire.ConsumeFieldValue(num, typ, metadata[n:])
		field := metadata[:size]
		metadata = metadata[size:]
		if num != metaManagedFields || typ != protowire.BytesType {
			kept = append(kept, field...)
			continue
		}
		entry, _ := protowire.ConsumeBytes(field[n:])
		_ = eachField(entry, func(num protowire.Number, time []byte) error {
			if num == managedFieldsTime {
				size := protowire.SizeTag(managedFieldsTime) + protowire.SizeBytes(len(time))
				kept = protowire.AppendTag(kept, metaManagedFields, protowire.BytesType)
				kept = protowire.AppendVarint(kept, uint64(size))
				kept = protowire.AppendTag(kept, managedFieldsTime, protowire.BytesType)
				kept = protowire.AppendBytes(kept, time)
			}
			return nil
		})
	}
	dst = protowire.AppendTag(dst, eventMetadata, protowire.BytesType)
	dst = protowire.AppendBytes(dst, kept)
	return append(dst, rest...)
}

// parseSeconds reads a metav1.Time.
func parseSeconds(b []byte) (int64, error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
		if num == timeSeconds && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return 0, protowire.ParseError(n)
			}
			return int64(v), nil
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return 0, nil
}

// eachField calls visit for every field of a message that has a length.
func eachField(b []byte, visit func(num protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		if len(b) > 1 && b[0]&7 == byte(protowire.BytesType) && b[0] >= 1<<3 && b[0] < 0x80 && int(b[1]) <= min(0x7f, len(b)-2) {
			end := 2 + int(b[1]) // short, as nearly all are
			if err := visit(protowire.Number(b[0]>>3), b[2:end]); err != nil {
				return err
			}
			b = b[end:]
			continue
		}
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ == protowire.BytesType {
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if err := visit(num, value); err != nil {
				return err
			}
			b = b[n:]
			continue
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}
