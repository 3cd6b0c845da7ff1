package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Placeholders in an encoded Event for values that differ between the states of a template. All
// values have the same length.
const (
	openName    = "@@@@@@@@@@@@@@@@"                     // the end of the name
	openUID     = "~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~" // of the Event
	openVersion = "~@~@~@~@~@"
	openCreated = 1_911_111_111 // seconds since 1970
	openWritten = 1_922_222_222
)

// encoding encodes Events in protobuf: once for each template, which is copied and completed for
// each state. That costs a tenth of encoding a state.
type encoding struct {
	templates [2][]template // first states, and bumped ones
	warning   []bool        // of each object
	spread    []uint16      // an object for each slot
}

// template is an encoded Event and where it is open.
type template struct {
	data               []byte
	name, uid, version []int
	created, written   []int
}

func newEncoding(s shape) (*encoding, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	all := s.population()
	enc := &encoding{spread: s.spread(all)}
	for _, e := range all {
		enc.warning = append(enc.warning, e.Type == corev1.EventTypeWarning)
		for i, e := range []corev1.Event{e, bumped(e)} {
			t, err := newTemplate(&e)
			if err != nil {
				return nil, fmt.Errorf("encode the Events: %w", err)
			}
			enc.templates[i] = append(enc.templates[i], t)
		}
	}
	return enc, nil
}

func newTemplate(e *corev1.Event) (t template, err error) {
	t.data, err = e.Marshal()
	t.name = t.find([]byte(openName))
	t.uid = t.find([]byte(openUID))
	t.version = t.find([]byte(openVersion))
	t.created = t.find(appendTime(nil, openCreated))
	t.written = t.find(appendTime(nil, openWritten))
	return t, err
}

// find returns the positions of a placeholder.
func (t *template) find(mark []byte) (at []int) {
	for from := 0; ; {
		i := bytes.Index(t.data[from:], mark)
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(mark)
	}
}

// appendTime appends a time as it is inside an Event: the number of a protobuf
// Timestamp's seconds, which has five bytes until the year 3058.
func appendTime(dst []byte, seconds int64) []byte {
	return binary.AppendUvarint(dst, uint64(seconds))
}

// of returns the template of a state.
func (enc *encoding) of(s state) *template {
	i := 0
	if s.bumped {
		i = 1
	}
	return &enc.templates[i][enc.object(s.event)]
}

// object is which object the Event is about that begins with a state.
func (enc *encoding) object(event int) int {
	// Knuth's multiplicative hash: of its highest bits, those of successive numbers are far apart.
	return int(enc.spread[uint32(event)*2654435761>>(32-17)])
}

// size is how long append makes a state.
func (enc *encoding) size(s state) int { return len(enc.of(s).data) }

// append appends a state.
func (enc *encoding) append(dst []byte, s state) []byte {
	t := enc.of(s)
	start := len(dst)
	dst = append(dst, t.data...)
	e := dst[start:]
	var room [40]byte
	fill := func(places []int, with []byte) {
		for _, at := range places {
			copy(e[at:], with)
		}
	}
	fill(t.name, appendHex(room[:0], uint64(s.event), len(openName)))
	uid := append(room[:0], "6d2f3c1a-7b5e-4c9d-8e0f-"...)
	fill(t.uid, appendHex(uid, uint64(s.event), 12))
	fill(t.version, strconv.AppendInt(room[:0], int64(firstVersion+s.version), 10))
	fill(t.created, appendTime(room[:0], s.created))
	fill(t.written, appendTime(room[:0], s.written))
	return dst
}

// appendHex appends a number with leading zeros.
func appendHex(dst []byte, n uint64, digits int) []byte {
	const hex = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hex[n>>shift&15])
	}
	return dst
}
