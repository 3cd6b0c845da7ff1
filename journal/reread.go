package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"

	"github.com/hindsight-events/hindsight/event"
)

// Location is where a record is in the log. Its fields are the journal's own.
type Location struct {
	Segment uint32
	Start   uint32 // of its frame, in bytes
	Bytes   uint32 // of its frame; 0: it is not in the log
}

// place of the frame peeked at.
func (r *reader) place() Location {
	return Location{Segment: uint32(r.seg.id), Start: uint32(r.pos), Bytes: uint32(frameHead + r.head.length)}
}

// ErrDamaged is returned for a record that was read before and is not what was
// written any more.
var ErrDamaged = errors.New("the record is damaged")

const (
	// Records that lie close together are read at once: so many bytes, with so
	// many between two of them.
	rereadBytes = 64 << 10
	rereadHole  = 8 << 10
)

// rereader reads records again that were read before. It keeps the segments open
// in which they are: one of them may be removed meanwhile, where the consumer has
// agreed to records being dropped that it has not read yet.
type rereader struct {
	storage storage

	mu   sync.Mutex // guards held
	held map[int]held

	// These are for the one goroutine that calls read.
	records event.Reader
	room    []byte
	buf     []byte // the log from at on, in segment
	segment uint32
	at      uint32
}

// held is a segment that is kept open.
type held struct {
	file
	base uint64 // offset of its first record
}

// hold keeps a segment open that the reader is in. An error is errUnreadable.
func (r *rereader) hold(s *segment) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.held[s.id]; ok {
		return nil
	}
	f, err := r.storage.open(s.name())
	if err != nil {
		return errUnreadable{fmt.Errorf("open segment %s: %w", s.name(), err)}
	}
	if r.held == nil {
		r.held = make(map[int]held)
	}
	r.held[s.id] = held{f, s.base}
	return nil
}

// release closes the segments that are not needed for the records from an offset
// on.
func (r *rereader) release(needed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.held) < 2 {
		return
	}
	oldest := 0
	for id, s := range r.held {
		if s.base <= needed {
			oldest = max(oldest, id)
		}
	}
	r.closeBefore(oldest)
}

func (r *rereader) releaseAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closeBefore(math.MaxInt)
}

// closeBefore is called with mu held.
func (r *rereader) closeBefore(oldest int) {
	for id, s := range r.held {
		if id < oldest {
			s.Close()
			delete(r.held, id)
		}
	}
}

// read visits the records at places.
func (r *rereader) read(places []Location, visit func(*event.Record)) error {
	r.buf = nil
	for i, p := range places {
		if p.Segment != r.segment || p.Start < r.at || int(p.Start-r.at)+int(p.Bytes) > len(r.buf) {
			if err := r.fill(places[i:]); err != nil {
				return err
			}
		}
		b := r.buf[p.Start-r.at:][:p.Bytes]
		head, err := parseFrameHead(b)
		if err != nil || frameHead+head.length != len(b) || crc32.Checksum(b[frameHead:], castagnoli) != head.sum {
			return ErrDamaged
		}
		record, err := r.records.Read(b[frameHead:])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		visit(record)
	}
	return nil
}

// fill reads the first of the places, and those that lie close behind it.
func (r *rereader) fill(places []Location) error {
	first := places[0]
	r.mu.Lock()
	f, ok := r.held[int(first.Segment)]
	r.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: its segment is gone", ErrDamaged)
	}
	end := first.Start + first.Bytes
	for _, p := range places[1:] {
		if p.Segment != first.Segment || p.Start < end || p.Start-end > rereadHole || p.Start+p.Bytes-first.Start > rereadBytes {
			break
		}
		end = p.Start + p.Bytes
	}
	n := int(end - first.Start)
	if cap(r.room) < n || cap(r.room) > rereadBytes && n <= rereadBytes {
		r.room = make([]byte, max(n, rereadBytes))
	}
	r.buf = r.room[:n]
	r.segment, r.at = first.Segment, first.Start
	got, err := f.ReadAt(r.buf, int64(first.Start))
	switch {
	case got == n:
		return nil
	case errors.Is(err, io.EOF):
		clear(r.buf[got:]) // shorter than it was: zeros are no frame
		return nil
	default:
		r.buf = nil
		return fmt.Errorf("read journal: %w", err)
	}
}

func (c *consumer) Read(places []Location, visit func(*event.Record)) error {
	return c.again.read(places, visit)
}

func (c *consumer) ReplaceWithGap(offset uint64) event.Record {
	j := c.j
	j.mu.Lock()
	positions := clonePositions(c.cursor.positions)
	gap := event.Gap{Namespace: j.namespace, Sink: c.name, Cause: event.CauseDamage, MissedAtLeast: 1}
	for i := range c.marks.len() {
		m, _ := c.marks.at(i)
		source, _ := c.marks.missed(i)
		from := positions[source]
		c.marks.apply(i, positions)
		if m.offset == offset {
			gap.Source, gap.From, gap.To = source, from, positions[source]
			break
		}
	}
	j.mu.Unlock()
	j.log.Error("a record in the journal is damaged; it is lost", "sink", c.name, "offset", offset)
	j.dropped(c.name, event.CauseDamage, 1)
	return event.NewGap(gap)
}
