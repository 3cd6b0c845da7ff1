package watch

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// frame is one message of a watch. Its object is a metav1.Status if the kind is ERROR, else a
// core/v1 Event, in protobuf and valid until the next frame is read.
type frame struct {
	kind   apiwatch.EventType
	object []byte
}

// frames reads the response to a watch: each frame after its length in four bytes, big endian.
//
// rest.Request.Watch is not used because it hides how a watch ended: its StreamWatcher closes
// its channel both at a clean end and if the connection breaks within a frame.
type frames struct {
	in  *bufio.Reader
	buf []byte
}

func newFrames(r io.Reader) *frames {
	return &frames{in: bufio.NewReaderSize(r, 32<<10)}
}

// next returns the next frame, or io.EOF if the watch ends between two frames. Other errors of
// the connection are returned unchanged.
func (f *frames) next() (frame, error) {
	length, err := f.in.Peek(4)
	if err != nil {
		if len(length) > 0 {
			err = unexpectedEOF(err)
		}
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(length)
	if size > maxObject {
		return frame{}, fmt.Errorf("%w: %d bytes exceed %d; it begins with %q", errInvalidFrame, size, maxObject, length)
	}
	_, _ = f.in.Discard(len(length))
	if f.buf, err = readFull(f.in, f.buf, int(size)); err != nil {
		return frame{}, err
	}
	return parseFrame(f.buf)
}

// buffered reports whether the next frame has been received.
func (f *frames) buffered() bool {
	n := f.in.Buffered()
	if n < 4 {
		return false
	}
	length, _ := f.in.Peek(4)
	return uint64(n-4) >= uint64(binary.BigEndian.Uint32(length))
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
