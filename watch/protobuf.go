package watch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An answer in protobuf begins with this, followed by a runtime.Unknown which
// holds the object:
// https://github.com/kubernetes/apimachinery/blob/v0.37.0/pkg/runtime/serializer/protobuf/protobuf.go
const protobufPrefix = "k8s\x00"

// Fields of the messages that are read without decoding them whole, from the
// generated.proto of k8s.io/api and k8s.io/apimachinery.
const (
	unknownTypeMeta = 1
	unknownRaw      = 2
	typeMetaKind    = 2

	listMetadata = 1
	listItems    = 2
)

// maxObject bounds what is allocated on the word of a length read from the
// network. etcd refuses objects of more than 1.5 MiB by default.
const maxObject = 16 << 20

// listKind is what an answer to a list must be.
const listKind = "EventList"

// readList reads an EventList and hands over its items one at a time, each in
// the protobuf form of core/v1 Event and valid until visit returns, or with the
// error why it cannot be decoded. The answer may be protobuf or JSON. An error of
// visit ends the reading and is returned as it is.
func readList(r io.Reader, visit func(item []byte, err error) error) (metav1.ListMeta, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	first, err := in.Peek(len(protobufPrefix))
	switch {
	case err == nil && string(first) == protobufPrefix:
		_, _ = in.Discard(len(protobufPrefix))
		return readProtobufList(in, visit)
	case len(first) > 0 && first[0] == '{':
		return readJSONList(in, visit)
	case err != nil:
		return metav1.ListMeta{}, fmt.Errorf("read event list: %w", unexpectedEOF(err))
	default:
		return metav1.ListMeta{}, fmt.Errorf("read event list: neither protobuf nor JSON: it begins with %q", first)
	}
}

func readProtobufList(in *bufio.Reader, visit func(item []byte, err error) error) (meta metav1.ListMeta, err error) {
	buf := make([]byte, 0, 16<<10)
	envelope := message{in: in, left: math.MaxInt64, toEOF: true}
	found := false
	for {
		num, size, err := envelope.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return meta, fmt.Errorf("read event list: %w", err)
		}
		if num != unknownRaw {
			if buf, err = envelope.read(buf, size); err == nil && num == unknownTypeMeta {
				err = checkKind(buf)
			}
			if err != nil {
				return meta, fmt.Errorf("read event list: %w", err)
			}
			continue
		}
		if found {
			return meta, errors.New("read event list: two objects in one answer")
		}
		found = true
		list := message{in: in, left: int64(size)}
		for {
			num, size, err := list.next()
			if err == io.EOF {
				break
			}
			if err == nil && (num == listMetadata || num == listItems) {
				buf, err = list.read(buf, size)
			} else if err == nil {
				err = list.skip(size)
			}
			if err != nil {
				return meta, fmt.Errorf("read event list: %w", err)
			}
			switch num {
			case listMetadata:
				if err := meta.Unmarshal(buf); err != nil {
					return meta, fmt.Errorf("read event list: metadata: %w", err)
				}
			case listItems:
				if err := visit(buf, nil); err != nil {
					return meta, err
				}
			}
		}
	}
	if !found {
		return meta, errors.New("read event list: no object in the answer")
	}
	return meta, nil
}

// checkKind refuses anything but a list of Events.
func checkKind(typeMeta []byte) error {
	kind := ""
	err := eachField(typeMeta, func(num protowire.Number, value []byte) error {
		if num == typeMetaKind {
			kind = string(value)
		}
		return nil
	})
	if err == nil && kind != listKind {
		err = fmt.Errorf("want kind %s, got %q", listKind, kind)
	}
	return err
}

// message reads the fields of one protobuf message from a stream.
type message struct {
	in    *bufio.Reader
	left  int64 // bytes of the message that were not read yet
	toEOF bool  // its length is not known; it ends with the input
}

// next reads up to the next field that has a length and returns its number and
// its size, which the caller reads or skips. Other fields are skipped. It
// returns io.EOF at the end of the message.
func (m *message) next() (protowire.Number, uint64, error) {
	for {
		if m.left == 0 {
			return 0, 0, io.EOF
		}
		tag, err := binary.ReadUvarint(m)
		if err == io.EOF && m.toEOF { // before the first byte
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

// read reads the field that next returned into buf, which grows as needed.
func (m *message) read(buf []byte, size uint64) ([]byte, error) {
	if size > maxObject {
		return buf, fmt.Errorf("object of %d bytes; at most %d are read", size, maxObject)
	}
	return readFull(m.in, buf, int(size))
}

// skip passes over the field that next returned.
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

// readFull reads size bytes into buf. It grows buf only as far as bytes arrive.
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

// unexpectedEOF is err where the end of the input is an error.
func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
