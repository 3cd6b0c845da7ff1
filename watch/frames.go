package watch

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// Fields of the messages of a watch, from the generated.proto of
// k8s.io/apimachinery.
const (
	watchEventType   = 1
	watchEventObject = 2
	rawExtensionRaw  = 1
)

// frame is one message of a watch. Its object is in protobuf, a metav1.Status if
// the kind is ERROR and else a core/v1 Event, and valid until the next frame is
// read. Of an Event in JSON that cannot be decoded, for the reason bad, it is the
// metadata that says which state it is.
type frame struct {
	kind   apiwatch.EventType
	object []byte
	bad    error
}

// frames reads the answer to a watch: in protobuf, each frame after its length
// in four bytes, big endian; in JSON, one after the other.
//
// It is done here and not by rest.Request.Watch because that hides how a watch
// ended: its StreamWatcher closes its channel for a clean end and for a
// connection cut in the middle of a frame alike.
type frames struct {
	in  *bufio.Reader
	buf []byte
	dec *json.Decoder // nil while the answer is not known to be JSON
}

func newFrames(r io.Reader) *frames {
	return &frames{in: bufio.NewReaderSize(r, 32<<10)}
}

// errInvalidFrame is part of every error that is not the connection's.
var errInvalidFrame = errors.New("not a frame of a watch")

// next returns the next frame, io.EOF where the watch ends between two frames,
// and any other error of the connection as it is.
func (f *frames) next() (frame, error) {
	if f.dec != nil {
		return f.nextJSON()
	}
	first, err := f.in.Peek(1)
	if err != nil {
		return frame{}, err
	}
	// No protobuf frame is as long as a '{' in its first byte would say: 1.9 GiB.
	if first[0] == '{' {
		f.dec = json.NewDecoder(f.in)
		return f.nextJSON()
	}

	var length [4]byte
	if _, err := io.ReadFull(f.in, length[:]); err != nil {
		return frame{}, unexpectedEOF(err)
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxObject {
		return frame{}, fmt.Errorf("%w: %d bytes; at most %d are read", errInvalidFrame, size, maxObject)
	}
	if f.buf, err = readFull(f.in, f.buf, int(size)); err != nil {
		return frame{}, err
	}
	return parseFrame(f.buf)
}

func parseFrame(b []byte) (frame, error) {
	var fr frame
	err := eachField(b, func(num protowire.Number, value []byte) error {
		switch num {
		case watchEventType:
			fr.kind = apiwatch.EventType(value)
		case watchEventObject:
			return eachField(value, func(num protowire.Number, raw []byte) error {
				if num != rawExtensionRaw {
					return nil
				}
				var err error
				fr.object, err = unwrap(raw)
				return err
			})
		}
		return nil
	})
	if err != nil {
		return frame{}, fmt.Errorf("%w: %w", errInvalidFrame, err)
	}
	return fr, nil
}

// unwrap returns the object in an answer or a frame.
func unwrap(raw []byte) ([]byte, error) {
	if len(raw) < len(protobufPrefix) || string(raw[:len(protobufPrefix)]) != protobufPrefix {
		return nil, errors.New("object is not protobuf")
	}
	var object []byte
	err := eachField(raw[len(protobufPrefix):], func(num protowire.Number, value []byte) error {
		if num == unknownRaw {
			object = value
		}
		return nil
	})
	return object, err
}

func (f *frames) nextJSON() (frame, error) {
	var in struct {
		Type   apiwatch.EventType `json:"type"`
		Object json.RawMessage    `json:"object"`
	}
	if err := f.dec.Decode(&in); err != nil {
		var syntax *json.SyntaxError
		var typ *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &typ) {
			err = fmt.Errorf("%w: %w", errInvalidFrame, err)
		}
		return frame{}, err
	}
	var object protobufObject = &corev1.Event{}
	if in.Type == apiwatch.Error {
		object = &metav1.Status{}
	}
	fr := frame{kind: in.Type}
	raw, err := jsonToProtobuf(in.Object, object)
	if err != nil && in.Type != apiwatch.Error {
		fr.bad = fmt.Errorf("decode event %s: %w", jsonName(in.Object), err)
		raw, err = (&corev1.Event{ObjectMeta: jsonMeta(in.Object)}).Marshal()
	}
	if err != nil {
		return frame{}, fmt.Errorf("%w: %w", errInvalidFrame, err)
	}
	fr.object = raw
	return fr, nil
}
