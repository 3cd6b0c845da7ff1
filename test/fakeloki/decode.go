package fakeloki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// readPush returns the streams of a push and its uncompressed size.
func readPush(r *http.Request) (streams []Stream, size int, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, 0, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, 0, err
	}
	if kind == "application/json" {
		streams, err = decodeJSON(body)
		return streams, len(body), err
	}
	return DecodePush(body)
}

// DecodePush returns the streams in the body of a push, which is protobuf compressed with snappy, and
// the uncompressed size. It implements the definition of the protocol and shares no code with the
// sink.
func DecodePush(body []byte) (streams []Stream, size int, err error) {
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, 0, err
	}
	err = fields(plain, func(number protowire.Number, b []byte, _ uint64) error {
		if number != 1 {
			return nil
		}
		var s Stream
		streams = append(streams, s)
		return fields(b, func(number protowire.Number, b []byte, _ uint64) error {
			s := &streams[len(streams)-1]
			switch number {
			case 1:
				s.Labels = string(b)
			case 2:
				e, err := decodeEntry(b)
				s.Entries = append(s.Entries, e)
				return err
			}
			return nil
		})
	})
	return streams, len(plain), err
}

func decodeEntry(b []byte) (e Entry, err error) {
	e.Metadata = map[string]string{}
	err = fields(b, func(number protowire.Number, b []byte, _ uint64) error {
		switch number {
		case 1:
			var seconds, nanos uint64
			err := fields(b, func(number protowire.Number, _ []byte, n uint64) error {
				switch number {
				case 1:
					seconds = n
				case 2:
					nanos = n
				}
				return nil
			})
			e.Time = time.Unix(int64(seconds), int64(nanos)).UTC()
			return err
		case 2:
			e.Line = string(b)
		case 3:
			var pair [3]string
			err := fields(b, func(number protowire.Number, b []byte, _ uint64) error {
				if number <= 2 {
					pair[number] = string(b)
				}
				return nil
			})
			e.Metadata[pair[1]] = pair[2]
			return err
		}
		return nil
	})
	return e, err
}

// fields visits the fields of a message: those with a length, and numbers.
func fields(b []byte, visit func(number protowire.Number, value []byte, n uint64) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var value []byte
		var i uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			i, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := visit(number, value, i); err != nil {
			return err
		}
	}
	return nil
}

// decodeJSON reads {"streams":[{"stream":{…},"values":[["<ns>","line",{metadata}]]}]}. Other
// members are ignored, as in Loki, so that its older form is stored as nothing.
func decodeJSON(body []byte) (streams []Stream, err error) {
	var push struct {
		Streams []struct {
			Stream map[string]string
			Values [][]json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &push); err != nil {
		return nil, err
	}
	for _, s := range push.Streams {
		if s.Stream == nil {
			continue
		}
		p := Stream{Labels: selector(s.Stream)}
		for _, v := range s.Values {
			var at string
			e := Entry{Metadata: map[string]string{}}
			into := []any{&at, &e.Line, &e.Metadata}
			if len(v) < 2 || len(v) > len(into) {
				return nil, fmt.Errorf("an entry of %d values", len(v))
			}
			for i := range v {
				err = errors.Join(err, json.Unmarshal(v[i], into[i]))
			}
			ns, bad := strconv.ParseInt(at, 10, 64)
			if err = errors.Join(err, bad); err != nil {
				return nil, err
			}
			e.Time = time.Unix(0, ns).UTC()
			p.Entries = append(p.Entries, e)
		}
		streams = append(streams, p)
	}
	return streams, nil
}
