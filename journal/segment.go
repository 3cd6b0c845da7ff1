package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// A segment is a file of the log. It begins with a header:
//
//	magic     4  "HSL1"; the last character is the version of the format
//	length    4  of what follows the checksum
//	checksum  4  of all before and behind it
//	content      JSON: the offset of the first record, and the positions of all
//	             sources before it, so that they outlive the records
//
// and goes on with frames:
//
//	magic     4  "HSr1" a record, "HSp1" a position: it takes no offset
//	length    4  of the payload
//	offset    8  of the record, or of the one after the position
//	time      8  when it was appended, in nanoseconds since 1970
//	index     4  among the frames that were synced together, from 0
//	checksum  4  of the payload
//	checksum  4  of the 32 bytes before it
//	payload      as encoded by event.Record
//
// A head has a checksum of its own, so that no length is believed that was not
// written. Damage is left behind by looking for the next sound frame. The index
// tells it from a write that was torn by a loss of power: what was written after
// a sync begins with index 0, so whatever is before such a frame had been synced.
const (
	magicSegment  = "HSL1"
	magicRecord   = "HSr1"
	magicPosition = "HSp1"
	magicPrefix   = "HS" // what to look for behind damage

	segmentHead = 12
	frameHead   = 36

	// maxPayload is far beyond the largest object that etcd takes (1.5 MiB by
	// default, https://etcd.io/docs/v3.6/dev-guide/limit/). A length above it
	// is not believed.
	maxPayload = 16 << 20

	// A journal has at least so many segments when it is full, so that what
	// has been acknowledged is soon let go of; and none that takes long to
	// look through.
	segmentsAtLeast = 16
	maxSegmentBytes = 16 << 20

	segmentSuffix = ".log"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoFrame = errors.New("not a frame")
	errDamaged = errors.New("checksum does not match")
)

// segment is one file of the log. Its fields do not change once it is not the
// last any more; Journal.mu guards the change.
type segment struct {
	id   int    // in the order of creation; names may come again
	base uint64 // offset of its first record
	size int64  // bytes that count; for the last segment, Journal.size does
}

func (s *segment) name() string { return segmentName(s.base) }

func segmentName(base uint64) string { return fmt.Sprintf("%020d%s", base, segmentSuffix) }

// parseSegmentName returns the offset of the first record of a segment.
func parseSegmentName(name string) (base uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 10, 64)
	return base, err == nil
}

// segmentInfo is the content of a segment's header.
type segmentInfo struct {
	Base      uint64          `json:"base"`
	Positions storedPositions `json:"positions,omitempty"`
}

func encodeSegmentHeader(base uint64, positions map[string]event.Position) ([]byte, error) {
	content, err := json.Marshal(segmentInfo{Base: base, Positions: storePositions(positions)})
	if err != nil {
		return nil, fmt.Errorf("encode segment header: %w", err)
	}
	return seal(magicSegment, content), nil
}

// decodeSegmentHeader reads a header from the beginning of b and returns how
// long it is. Where b is too short for all of it, that length is returned with
// errShort.
func decodeSegmentHeader(b []byte) (segmentInfo, int, error) {
	var info segmentInfo
	content, n, err := unseal(magicSegment, b)
	if err != nil {
		return info, n, err
	}
	if err := json.Unmarshal(content, &info); err != nil {
		return info, 0, fmt.Errorf("segment header: %w", err)
	}
	return info, n, nil
}

var errShort = errors.New("more bytes are needed")

// maxSealed bounds what unseal believes.
const maxSealed = 16 << 20

// seal wraps content in a magic, its length and a checksum.
func seal(magic string, content []byte) []byte {
	b := make([]byte, segmentHead, segmentHead+len(content))
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(content)))
	b = append(b, content...)
	binary.LittleEndian.PutUint32(b[8:], sealSum(b))
	return b
}

func sealSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[segmentHead:])
}

// unseal returns what seal wrapped, and its length with the wrapping.
func unseal(magic string, b []byte) (content []byte, n int, err error) {
	if len(b) < segmentHead {
		return nil, segmentHead, errShort
	}
	if string(b[:4]) != magic {
		return nil, 0, fmt.Errorf("begins with %q, want %q", b[:4], magic)
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if length > maxSealed {
		return nil, 0, fmt.Errorf("length %d is not believable", length)
	}
	n = segmentHead + int(length)
	if len(b) < n {
		return nil, n, errShort
	}
	if binary.LittleEndian.Uint32(b[8:]) != sealSum(b[:n]) {
		return nil, 0, errDamaged
	}
	return b[segmentHead:n], n, nil
}

// frame is a record or a position at its place in a segment.
type frame struct {
	position bool
	offset   uint64
	time     int64
	index    uint32
	length   int // of the payload
	sum      uint32
	payload  []byte // valid until the reader moves on
}

// after is the offset of the record after the frame.
func (f frame) after() uint64 {
	if f.position {
		return f.offset
	}
	return f.offset + 1
}

// parseFrameHead reads a frame without its payload from frameHead bytes.
func parseFrameHead(b []byte) (frame, error) {
	magic := string(b[:4])
	if magic != magicRecord && magic != magicPosition {
		return frame{}, errNoFrame
	}
	if binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return frame{}, errDamaged
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if length > maxPayload {
		return frame{}, errDamaged
	}
	return frame{
		position: magic == magicPosition,
		offset:   binary.LittleEndian.Uint64(b[8:]),
		time:     int64(binary.LittleEndian.Uint64(b[16:])),
		index:    binary.LittleEndian.Uint32(b[24:]),
		length:   int(length),
		sum:      binary.LittleEndian.Uint32(b[28:]),
	}, nil
}
