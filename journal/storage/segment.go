package storage

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// Segment is one file of the log.
type Segment struct {
	ID   int    // in the order of creation; names may be reused
	Base uint64 // offset of its first record

	// Size is the number of committed bytes, once it is not the last segment any more.
	Size int64
}

// Name is the name of the file.
func (s *Segment) Name() string { return segmentName(s.Base) }

const segmentSuffix = ".log"

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

// Log is the committed part of the log at one time.
type Log struct {
	Segments []*Segment // oldest first, never empty, never changed in place
	Size     int64      // committed bytes of the last segment
}

// First returns the oldest segment.
func (l Log) First() *Segment { return l.Segments[0] }

// Last returns the segment that is written.
func (l Log) Last() *Segment { return l.Segments[len(l.Segments)-1] }

// Bytes returns the size of all segments.
func (l Log) Bytes() int64 {
	bytes := l.Size
	for _, s := range l.Segments[:len(l.Segments)-1] {
		bytes += s.Size
	}
	return bytes
}

// size returns the committed bytes of a segment.
func (l Log) size(s *Segment) int64 {
	if s == l.Last() {
		return l.Size
	}
	return s.Size
}

// next returns the segment after s, or nil.
func (l Log) next(s *Segment) *Segment {
	for _, other := range l.Segments {
		if other.ID > s.ID {
			return other
		}
	}
	return nil
}

// containing returns the segment of an offset. Of an offset that is in none, because it was
// deleted or lost, it returns the segment before the gap.
func (l Log) containing(offset uint64) *Segment {
	found := l.First()
	for _, s := range l.Segments {
		if s.Base <= offset {
			found = s
		}
	}
	return found
}

const magicSegment = "HSL1"

type segmentHeader struct {
	Base      uint64          `json:"base"`
	Positions storedPositions `json:"positions,omitempty"`
}

// EncodeHeader returns the header of a segment: the offset of its first record, and the
// positions of all sources before it.
func EncodeHeader(base uint64, positions map[string]event.Position) ([]byte, error) {
	content, err := json.Marshal(segmentHeader{Base: base, Positions: storePositions(positions)})
	if err != nil {
		return nil, fmt.Errorf("encode segment header: %w", err)
	}
	return appendBlock(nil, magicSegment, content), nil
}

// decodeHeader returns the positions in the header at the beginning of b, and its length. If b
// is too short for it, the error is errShort and the length the one needed.
func decodeHeader(b []byte) (map[string]event.Position, int, error) {
	content, n, err := parseBlock(magicSegment, b)
	if err != nil {
		return nil, n, err
	}
	var header segmentHeader
	if err := json.Unmarshal(content, &header); err != nil {
		return nil, 0, fmt.Errorf("decode segment header: %w", err)
	}
	positions, err := header.Positions.restore()
	return positions, n, err
}
