package loki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	jsoniter "github.com/json-iterator/go"

	"github.com/hindsight-events/hindsight/event/format"
)

// stream is a stream of a response.
type stream struct {
	Stream map[string]string
	Values []value
}

func (s *stream) entry(v value) format.Entry {
	return format.Entry{Time: v.Time, Line: v.Line, Labels: s.Stream, Metadata: v.Metadata}
}

// value is [time, line, {"structuredMetadata":{…}}].
type value struct {
	Time     time.Time
	Line     string
	Metadata map[string]string
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *stream) UnmarshalJSON(b []byte) error {
	d := decoder{Iterator: jsoniter.ParseBytes(jsoniter.ConfigDefault, b)}
	*s = d.stream()
	return d.err()
}

// decoder decodes a response in one pass: encoding/json would take most of the time of a long
// search.
type decoder struct {
	*jsoniter.Iterator
	interned map[string]string
}

// err returns the error of the iterator, nil at the end of the text.
func (d *decoder) err() error {
	if d.Error == nil || errors.Is(d.Error, io.EOF) {
		return nil
	}
	return fmt.Errorf("decode an entry: %w", d.Error)
}

// response decodes the response to a log query and returns its status and the type of its result.
func (d *decoder) response(visit func(stream)) (status, resultType string) {
	d.ReadObjectCB(func(_ *jsoniter.Iterator, key string) bool {
		switch key {
		case "status":
			status = d.ReadString()
		case "data":
			d.ReadObjectCB(func(_ *jsoniter.Iterator, key string) bool {
				switch {
				case key == "resultType":
					resultType = d.ReadString()
				case key == "result" && (resultType == "" || resultType == "streams"):
					d.ReadArrayCB(func(*jsoniter.Iterator) bool {
						visit(d.stream())
						return d.Error == nil
					})
				default:
					d.Skip()
				}
				return d.Error == nil
			})
		default:
			d.Skip()
		}
		return d.Error == nil
	})
	return status, resultType
}

func (d *decoder) stream() (s stream) {
	d.ReadObjectCB(func(_ *jsoniter.Iterator, key string) bool {
		switch key {
		case "stream":
			s.Stream = d.pairs()
		case "values":
			d.ReadArrayCB(func(*jsoniter.Iterator) bool {
				s.Values = append(s.Values, d.value())
				return d.Error == nil
			})
		default:
			d.Skip()
		}
		return d.Error == nil
	})
	return s
}

func (d *decoder) value() (v value) {
	part := 0
	d.ReadArrayCB(func(*jsoniter.Iterator) bool {
		switch part {
		case 0:
			n, err := strconv.ParseInt(d.ReadString(), 10, 64)
			if err != nil && d.Error == nil {
				d.ReportError("read a time", err.Error())
			}
			v.Time = time.Unix(0, n).UTC()
		case 1:
			v.Line = d.ReadString()
		case 2:
			d.ReadObjectCB(func(_ *jsoniter.Iterator, key string) bool {
				if key == "structuredMetadata" {
					v.Metadata = d.pairs()
				} else {
					d.Skip()
				}
				return d.Error == nil
			})
		default:
			d.Skip()
		}
		part++
		return d.Error == nil
	})
	if part < 2 && d.Error == nil {
		d.ReportError("read an entry", "it has no time and line")
	}
	return v
}

// maxInterned is the length of the longest value to intern: longer ones are rarely equal.
const maxInterned = 32

func (d *decoder) pairs() map[string]string {
	pairs := make(map[string]string, 12)
	d.ReadObjectCB(func(_ *jsoniter.Iterator, key string) bool {
		value := d.ReadString()
		if len(value) <= maxInterned {
			value = d.intern(value)
		}
		pairs[d.intern(key)] = value
		return d.Error == nil
	})
	return pairs
}

// intern returns one copy of equal strings.
func (d *decoder) intern(s string) string {
	const maxStrings = 1 << 12
	if first, ok := d.interned[s]; ok {
		return first
	}
	if d.interned == nil {
		d.interned = map[string]string{}
	}
	if len(d.interned) < maxStrings {
		d.interned[s] = s
	}
	return s
}

var _ json.Unmarshaler = (*stream)(nil)
