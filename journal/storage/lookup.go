package storage

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/hindsight-events/hindsight/event"
)

// Location is the address of a record in the log. The zero Location is none.
type Location struct {
	Segment uint32
	Start   uint32 // of its frame in the segment
	Bytes   uint32 // of its frame
}

const (
	// Records that are close together are read at once: so many bytes, with at most so many
	// between two records.
	lookupBytes = 64 << 10
	lookupHole  = 8 << 10
)

// Lookup reads records by location. Segments are pinned, that is kept open, because they may be
// deleted while records in them are still needed.
type Lookup struct {
	fs FS

	mu     sync.Mutex // guards pinned
	pinned map[int]pinnedSegment

	// For the goroutine that calls Read.
	records event.Reader
	memory  []byte // during Read
	buf     []byte // of segment, from start on
	segment uint32
	start   uint32
}

type pinnedSegment struct {
	File
	base uint64 // offset of its first record
}

// lookupMemory is shared by the consumers of a journal, which rarely read at once.
var lookupMemory = sync.Pool{New: func() any { return new([lookupBytes]byte) }}

// NewLookup returns a Lookup without pinned segments.
func NewLookup(fs FS) *Lookup { return &Lookup{fs: fs, pinned: make(map[int]pinnedSegment)} }

// Pin keeps a segment open.
func (l *Lookup) Pin(s *Segment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.pinned[s.ID]; ok {
		return nil
	}
	f, err := l.fs.Open(s.Name())
	if err != nil {
		return fmt.Errorf("open segment %s: %w", s.Name(), err)
	}
	l.pinned[s.ID] = pinnedSegment{f, s.Base}
	return nil
}

// Unpin closes the segments that hold only records before an offset.
func (l *Lookup) Unpin(before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pinned) < 2 {
		return
	}
	first := 0
	for id, s := range l.pinned {
		if s.base <= before {
			first = max(first, id)
		}
	}
	l.closeBefore(first)
}

// UnpinAll closes all segments.
func (l *Lookup) UnpinAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeBefore(math.MaxInt)
}

func (l *Lookup) closeBefore(first int) {
	for id, s := range l.pinned {
		if id < first {
			s.Close()
			delete(l.pinned, id)
		}
	}
}

// Read visits the records at locations in pinned segments. A record is valid until visit returns.
func (l *Lookup) Read(locations []Location, visit func(*event.Record)) error {
	memory := lookupMemory.Get().(*[lookupBytes]byte)
	l.memory = memory[:]
	defer func() {
		l.memory, l.buf = nil, nil
		lookupMemory.Put(memory)
	}()
	for i, at := range locations {
		if at.Segment != l.segment || at.Start < l.start || int(at.Start-l.start)+int(at.Bytes) > len(l.buf) {
			if err := l.fill(locations[i:]); err != nil {
				return err
			}
		}
		b := l.buf[at.Start-l.start:][:at.Bytes]
		frame, err := parseFrameHead(b)
		if err == nil && frameHead+frame.length != len(b) {
			err = ErrDamaged
		}
		if err == nil {
			frame, err = frame.withPayload(b)
		}
		var record *event.Record
		if err == nil {
			record, err = l.records.Read(frame.Payload)
		}
		if err != nil {
			return fmt.Errorf("read record again, at %d in segment %d: %w", at.Start, at.Segment, err)
		}
		visit(record)
	}
	return nil
}

// fill reads the first of the locations, and those close after it.
func (l *Lookup) fill(locations []Location) error {
	first := locations[0]
	l.mu.Lock()
	f, ok := l.pinned[int(first.Segment)]
	l.mu.Unlock()
	if !ok {
		return fmt.Errorf("read record again: segment %d is not pinned", first.Segment)
	}
	end := first.Start + first.Bytes
	for _, at := range locations[1:] {
		if at.Segment != first.Segment || at.Start < end || at.Start-end > lookupHole || at.Start+at.Bytes-first.Start > lookupBytes {
			break
		}
		end = at.Start + at.Bytes
	}
	n := int(end - first.Start)
	if len(l.memory) < n {
		l.memory = make([]byte, n)
	}
	l.buf = l.memory[:n]
	l.segment, l.start = first.Segment, first.Start
	got, err := f.ReadAt(l.buf, int64(first.Start))
	if got < n && !errors.Is(err, io.EOF) {
		l.buf = nil
		return fmt.Errorf("read record again: %w", err)
	}
	clear(l.buf[got:]) // missing bytes count as damage
	return nil
}
