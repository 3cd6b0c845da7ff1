package watch

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hindsight-events/hindsight/event"
)

// eventMeta is the metadata that is needed before, or instead of, decoding a state.
type eventMeta struct {
	version uint64
	created int64 // seconds since 1970, by the API server's clock
	written int64 // time of the last known write
}

// errStop ends eachField early.
var errStop = errors.New("found")

// parseMeta parses the metadata of an Event in protobuf, its first field, and nothing else. It
// ignores times of managedFields that are impossible by the clock (event.PlausibleTime); a zero
// clock makes all of them possible.
func parseMeta(raw []byte, clock time.Time) (eventMeta, error) {
	var m eventMeta
	var managed int64
	var version []byte
	parsed := false
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
					if event.PlausibleTime(t, clock) {
						managed = max(managed, t)
					}
					return err
				})
			}
			return err
		})
		if err == nil {
			parsed, err = true, errStop
		}
		return err
	})
	if err != nil && !parsed {
		return eventMeta{}, fmt.Errorf("read metadata of event: %w", err)
	}
	m.version, err = strconv.ParseUint(string(version), 10, 64)
	if err != nil || m.version == 0 {
		return eventMeta{}, fmt.Errorf("read metadata of event: resourceVersion %q is not a version", version)
	}
	m.written = max(managed, m.created)
	return m, nil
}

// stripManagedFields appends an Event that parseMeta has accepted to dst, without managedFields
// except for their times: event.Decode ignores the rest, a third of an Event.
func stripManagedFields(dst, raw []byte) []byte {
	num, typ, n := protowire.ConsumeTag(raw)
	if num != eventMetadata || typ != protowire.BytesType {
		return append(dst, raw...) // no API server encodes it like this
	}
	metadata, m := protowire.ConsumeBytes(raw[n:])
	rest := raw[n+m:]

	var buf [1 << 10]byte // on the stack, if it suffices
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

// parseSeconds parses the seconds of a metav1.Time.
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
