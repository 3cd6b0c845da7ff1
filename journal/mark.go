package journal

import (
	"maps"
	"math"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/queue"
)

// step is one move of a consumer along the log, and what it means for the cursor
// once it is acknowledged.
type step struct {
	offset   uint64 // of the entry that was visited; zero: none
	next     uint64 // offset behind it, and behind what was passed over after it
	appended int64  // nanoseconds since 1970
	source   string
	missed   int // records of source that are missing if it never is acknowledged

	// Where the sources are afterwards: position is that of source, unless
	// it is not moved; others are those of further sources.
	moves    bool
	position event.Position
	others   map[string]event.Position
}

// absorb adds a step without an entry that follows.
func (s *step) absorb(next step) {
	s.next = next.next
	if next.moves && next.source == s.source {
		s.moves, s.position = true, next.position
		delete(s.others, s.source)
	} else if next.moves {
		s.others = with(s.others, next.source, next.position)
	}
	for source, p := range next.others {
		s.others = with(s.others, source, p)
	}
}

// apply moves positions to where the step leads.
func (s *step) apply(positions map[string]event.Position) {
	if s.moves {
		positions[s.source] = s.position
	}
	maps.Copy(positions, s.others)
}

// mark is the step of an entry that was visited and has not been acknowledged.
// There is one for each entry that waits to be sent, so it is small and holds no
// pointer: what few have, and what nearly all have in common, is kept aside.
type mark struct {
	offset   uint64
	version  uint64 // of the position, if origin moves
	appended int64  // nanoseconds since 1970
	span     uint32 // from offset to next
	seconds  uint32 // Position.Time since 1970; 0: none
	origin   uint32 // index in marks.origins
	missed   uint32
}

func (m *mark) next() uint64          { return m.offset + uint64(m.span) }
func (m *mark) appendedAt() time.Time { return time.Unix(0, m.appended) }

// origin is what marks in a row have in common.
type origin struct {
	source string
	moves  bool
	epoch  event.Epoch
	listed uint64
}

// marks are those of a consumer, oldest first.
type marks struct {
	queue.Queue[mark]
	origins []origin
	known   map[origin]uint32
	others  map[uint64]map[string]event.Position // by offset, moves of more than origin and version say
}

// add adds the mark of a step with an entry.
func (ms *marks) add(s *step) {
	m := mark{
		offset:   s.offset,
		appended: s.appended,
		span:     uint32(s.next - s.offset),
		missed:   uint32(s.missed),
	}
	o := origin{source: s.source}
	if s.moves {
		o.moves, o.epoch, o.listed = true, s.position.Epoch, s.position.Listed
		m.version = s.position.Version
		at := s.position.Time
		seconds := at.Unix()
		switch {
		case at.IsZero():
		case seconds > 0 && seconds <= math.MaxUint32 && at.Nanosecond() == 0:
			m.seconds = uint32(seconds)
		default:
			ms.move(s.offset, s.source, s.position)
		}
	}
	for source, p := range s.others {
		ms.move(s.offset, source, p)
	}
	m.origin = ms.originOf(o)
	ms.Push(m)
}

func (ms *marks) originOf(o origin) uint32 {
	if ms.Len() > 0 {
		if last := ms.At(ms.Len() - 1).origin; ms.origins[last] == o {
			return last
		}
	}
	i, known := ms.known[o]
	if !known {
		if ms.known == nil {
			ms.known = make(map[origin]uint32)
		}
		i = uint32(len(ms.origins))
		ms.origins = append(ms.origins, o)
		ms.known[o] = i
	}
	return i
}

// absorb adds a step without an entry to the last mark.
func (ms *marks) absorb(s *step) {
	m := ms.At(ms.Len() - 1)
	m.span = uint32(s.next - m.offset)
	if s.moves {
		ms.move(m.offset, s.source, s.position)
	}
	for source, p := range s.others {
		ms.move(m.offset, source, p)
	}
}

func (ms *marks) move(offset uint64, source string, p event.Position) {
	if ms.others == nil {
		ms.others = make(map[uint64]map[string]event.Position)
	}
	ms.others[offset] = with(ms.others[offset], source, p)
}

// source returns the source of a mark's entry.
func (ms *marks) source(m *mark) string { return ms.origins[m.origin].source }

// apply moves positions to where a mark leads.
func (ms *marks) apply(m *mark, positions map[string]event.Position) {
	if o := &ms.origins[m.origin]; o.moves {
		p := event.Position{Epoch: o.epoch, Version: m.version, Listed: o.listed}
		if m.seconds != 0 {
			p.Time = time.Unix(int64(m.seconds), 0).UTC()
		}
		positions[o.source] = p
	}
	if len(ms.others) > 0 {
		maps.Copy(positions, ms.others[m.offset])
	}
}

// drop removes the first n marks.
func (ms *marks) drop(n int) {
	if n == ms.Len() {
		*ms = marks{Queue: ms.Queue, known: ms.known}
		clear(ms.known)
	}
	for i := 0; i < n && len(ms.others) > 0; i++ {
		delete(ms.others, ms.At(i).offset)
	}
	ms.Drop(n)
}

func with(positions map[string]event.Position, source string, p event.Position) map[string]event.Position {
	if positions == nil {
		positions = make(map[string]event.Position, 1)
	}
	positions[source] = p
	return positions
}
