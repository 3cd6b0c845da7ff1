package watch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// A response in protobuf begins with this prefix, followed by a runtime.Unknown that holds the
// object:
// https://github.com/kubernetes/apimachinery/blob/v0.37.0/pkg/runtime/serializer/protobuf/protobuf.go
//
// JSON is not read: every API server has built-in kinds, such as Event, in protobuf (only custom
// and aggregated kinds may lack it), and reverse proxies pass bodies through.
const protobufPrefix = "k8s\x00"

// Fields that are read without decoding the whole message, from generated.proto of k8s.io/api
// and k8s.io/apimachinery.
const (
	unknownTypeMeta = 1
	unknownRaw      = 2
	typeMetaKind    = 2

	listMetadata = 1
	listItems    = 2

	watchEventType   = 1
	watchEventObject = 2
	rawExtensionRaw  = 1

	eventMetadata         = 1
	metaResourceVersion   = 6
	metaCreationTimestamp = 8
	metaManagedFields     = 17
	managedFieldsTime     = 4
	timeSeconds           = 1
)

// maxObject limits the memory that a length read from the network allocates. By default, etcd
// rejects objects of more than 1.5 MiB.
const maxObject = 16 << 20

// unwrap returns the object in a response or a frame.
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

// eachField calls visit for each length-delimited field of a message.
func eachField(b []byte, visit func(num protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		if len(b) > 1 && b[0]&7 == byte(protowire.BytesType) && b[0] >= 1<<3 && b[0] < 0x80 && int(b[1]) <= min(0x7f, len(b)-2) {
			end := 2 + int(b[1]) // fast path: nearly all fields are short
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

// message reads the fields of one protobuf message from a stream.
type message struct {
	in    *bufio.Reader
	left  int64 // unread bytes of the message
	toEOF bool  // the message ends with the input
}

// next returns number and size of the next length-delimited field, which the caller reads or
// skips. It skips other fields. At the end of the message it returns io.EOF.
func (m *message) next() (protowire.Number, uint64, error) {
	for {
		if m.left == 0 {
			return 0, 0, io.EOF
		}
		tag, err := binary.ReadUvarint(m)
		if errors.Is(err, io.EOF) && m.toEOF { // before the first byte
			return 0, 0, io.EOF
		}
		if err != nil {
			return 0, 0, unexpectedEOF(err)
		}
		num, typ := protowire.DecodeTag(tag)
		if num < protowire.MinValidNumber || tag>>3 > uint64(protowire.MaxValidNumber) {
			return 0, 0, fmt.Errorf("invalid field number in tag %d", tag)
		}
		switch typ {
		case protowire.BytesType:
			size, err := binary.ReadUvarint(m)
			if err != nil {
				return 0, 0, unexpectedEOF(err)
			}
			if size > uint64(m.left) {
				return 0, 0, fmt.Errorf("field %d of %d bytes in a message with %d left", num, size, m.left)
			}
			m.left -= int64(size)
			return num, size, nil
		case protowire.VarintType:
			_, err = binary.ReadUvarint(m)
		case protowire.Fixed32Type:
			err = m.skipScalar(4)
		case protowire.Fixed64Type:
			err = m.skipScalar(8)
		default:
			err = fmt.Errorf("field %d of unknown type %d", num, typ)
		}
		if err != nil {
			return 0, 0, unexpectedEOF(err)
		}
	}
}

func (m *message) skipScalar(size int) error {
	if int64(size) > m.left {
		return io.ErrUnexpectedEOF
	}
	m.left -= int64(size)
	_, err := m.in.Discard(size)
	return unexpectedEOF(err)
}

// read reads the field of the last next into buf, growing it if necessary.
func (m *message) read(buf []byte, size uint64) ([]byte, error) {
	if size > maxObject {
		return buf, fmt.Errorf("object of %d bytes exceeds %d", size, maxObject)
	}
	return readFull(m.in, buf, int(size))
}

// skip skips the field of the last next.
func (m *message) skip(size uint64) error {
	_, err := io.CopyN(io.Discard, m.in, int64(size))
	return unexpectedEOF(err)
}

func (m *message) ReadByte() (byte, error) {
	if m.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	b, err := m.in.ReadByte()
	if err == nil {
		m.left--
	}
	return b, err
}

// readFull reads size bytes into buf, which grows only as bytes arrive.
func readFull(r io.Reader, buf []byte, size int) ([]byte, error) {
	const step = 1 << 20
	buf = buf[:0]
	for len(buf) < size {
		n := min(size-len(buf), step)
		start := len(buf)
		if need := start + n; need > cap(buf) {
			buf = append(buf, make([]byte, n)...)
		} else {
			buf = buf[:need]
		}
		if _, err := io.ReadFull(r, buf[start:]); err != nil {
			return buf, unexpectedEOF(err)
		}
	}
	return buf, nil
}

// unexpectedEOF turns io.EOF into io.ErrUnexpectedEOF.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
