package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hindsight-events/hindsight/event"
)

const (
	magicRecord   = "HSr1"
	magicPosition = "HSp1"
	magicPrefix   = "HS" // to search for after damage

	frameHead = 36

	// maxPayload is far above the largest object that etcd accepts (1.5 MiB by default,
	// https://etcd.io/docs/v3.6/dev-guide/limit/). A length above it is not trusted.
	maxPayload = 16 << 20
)

var errNoFrame = errors.New("not a frame")

// Frame is a record, or a position, in a segment.
type Frame struct {
	PositionOnly bool
	Offset       uint64 // of the record, or of the record after the position
	Time         int64  // of the append, in nanoseconds since 1970
	Payload      []byte // an encoded event.Record, valid until the reader advances

	index  uint32 // among the frames that were synced together
	length int    // of the payload
	sum    uint32 // of the payload
}

// Next returns the offset of the record after the frame.
func (f Frame) Next() uint64 {
	if f.PositionOnly {
		return f.Offset
	}
	return f.Offset + 1
}

// AppendFrame appends a record, or a position, as a frame. StampFrames completes it.
func AppendFrame(b []byte, r *event.Record) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, frameHead)...)
	b, err := r.AppendBinary(b)
	if err != nil {
		return b[:start], err
	}
	length := len(b) - start - frameHead
	if length > maxPayload {
		return b[:start], fmt.Errorf("record of %d bytes is larger than %d", length, maxPayload)
	}
	head := b[start:]
	copy(head, magicRecord)
	if r.PositionOnly() {
		copy(head, magicPosition)
	}
	binary.LittleEndian.PutUint32(head[4:], uint32(length))
	binary.LittleEndian.PutUint32(head[28:], crc32.Checksum(head[frameHead:], castagnoli))
	return b, nil
}

// StampFrames sets the offsets, time and indexes of frames, of which the first record has offset
// next and the first frame has the given index. It returns the offset and index that follow.
func StampFrames(b []byte, next uint64, index uint32, time int64) (uint64, uint32) {
	for len(b) > 0 {
		n := frameHead + int(binary.LittleEndian.Uint32(b[4:]))
		binary.LittleEndian.PutUint64(b[8:], next)
		binary.LittleEndian.PutUint64(b[16:], uint64(time))
		binary.LittleEndian.PutUint32(b[24:], index)
		binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
		if string(b[:4]) == magicRecord {
			next++
		}
		index++
		b = b[n:]
	}
	return next, index
}

// parseFrameHead parses a frame without its payload.
func parseFrameHead(b []byte) (Frame, error) {
	magic := string(b[:4])
	if magic != magicRecord && magic != magicPosition {
		return Frame{}, errNoFrame
	}
	if binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return Frame{}, ErrDamaged
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if length > maxPayload {
		return Frame{}, ErrDamaged
	}
	return Frame{
		PositionOnly: magic == magicPosition,
		Offset:       binary.LittleEndian.Uint64(b[8:]),
		Time:         int64(binary.LittleEndian.Uint64(b[16:])),
		index:        binary.LittleEndian.Uint32(b[24:]),
		length:       int(length),
		sum:          binary.LittleEndian.Uint32(b[28:]),
	}, nil
}

// withPayload returns the frame with the payload that follows its head in b.
func (f Frame) withPayload(b []byte) (Frame, error) {
	f.Payload = b[frameHead:][:f.length]
	if crc32.Checksum(f.Payload, castagnoli) != f.sum {
		return Frame{}, ErrDamaged
	}
	return f, nil
}
