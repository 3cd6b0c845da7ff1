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
	seconds  uint32 // Position.Time since 1970; 0: none
	origin   uint32 // index in marks.origins
}

func (m *mark) appendedAt() time.Time { return time.Unix(0, m.appended) }

// origin is what marks in a row have in common.
type origin struct {
	source string
	moves  bool
	epoch  event.Epoch
	listed uint64
}

// extra is what few marks have: those of gap records, and those behind which
// something was passed over.
type extra struct {
	next   uint64 // offset behind what was passed over; 0: behind the entry
	missed int    // records of source that are missing if the entry never is acknowledged; else 1
	moves  map[string]event.Position
}

// marks are those of a consumer, oldest first.
type marks struct {
	queue   queue.Queue[mark]
	first   uint64 // number of the oldest
	origins []origin
	known   map[origin]uint32
	extras  map[uint64]*extra // by number
}

func (ms *marks) len() int { return ms.queue.Len() }

// at returns the i-th mark, and what it has that few have; nil if nothing.
func (ms *marks) at(i int) (*mark, *extra) {
	var x *extra
	if len(ms.extras) > 0 {
		x = ms.extras[ms.first+uint64(i)]
	}
	return ms.queue.At(i), x
}

// add adds the mark of a step with an entry.
func (ms *marks) add(s *step) {
	m := mark{offset: s.offset, appended: s.appended}
	o := origin{source: s.source}
	x := extra{missed: s.missed}
	if s.next != s.offset+1 {
		x.next = s.next
	}
	if s.moves {
		o.moves, o.epoch, o.listed = true, s.position.Epoch, s.position.ListVersion
		m.version = s.position.Version
		at := s.position.Time
		seconds := at.Unix()
		switch {
		case at.IsZero():
		case seconds > 0 && seconds <= math.MaxUint32 && at.Nanosecond() == 0:
			m.seconds = uint32(seconds)
		default:
			x.moves = with(x.moves, s.source, s.position)
		}
	}
	for source, p := range s.others {
		x.moves = with(x.moves, source, p)
	}
	m.origin = ms.originOf(o)
	ms.queue.Push(m)
	if x.next != 0 || x.missed != 1 || x.moves != nil {
		*ms.extra(ms.len() - 1) = x
	}
}

func (ms *marks) originOf(o origin) uint32 {
	if ms.len() > 0 {
		if last := ms.queue.At(ms.len() - 1).origin; ms.origins[last] == o {
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

// extra returns that of the i-th mark, to be changed.
func (ms *marks) extra(i int) *extra {
	number := ms.first + uint64(i)
	if ms.extras == nil {
		ms.extras = make(map[uint64]*extra)
	}
	if ms.extras[number] == nil {
		ms.extras[number] = &extra{missed: 1}
	}
	return ms.extras[number]
}

// absorb adds a step without an entry to the last mark.
func (ms *marks) absorb(s *step) {
	x := ms.extra(ms.len() - 1)
	x.next = s.next
	if s.moves {
		x.moves = with(x.moves, s.source, s.position)
	}
	for source, p := range s.others {
		x.moves = with(x.moves, source, p)
	}
}

// missed returns how many records of which source are missing if the i-th mark's
// entry never is acknowledged.
func (ms *marks) missed(i int) (source string, records int) {
	m, x := ms.at(i)
	records = 1
	if x != nil {
		records = x.missed
	}
	return ms.origins[m.origin].source, records
}

// next returns the offset behind the i-th mark's entry, and behind what was passed
// over after it.
func (ms *marks) next(i int) uint64 {
	m, x := ms.at(i)
	if x != nil && x.next != 0 {
		return x.next
	}
	return m.offset + 1
}

// apply moves positions to where the i-th mark leads.
func (ms *marks) apply(i int, positions map[string]event.Position) {
	m, x := ms.at(i)
	if o := &ms.origins[m.origin]; o.moves {
		p := event.Position{Epoch: o.epoch, Version: m.version, ListVersion: o.listed}
		if m.seconds != 0 {
			p.Time = time.Unix(int64(m.seconds), 0).UTC()
		}
		positions[o.source] = p
	}
	if x != nil {
		maps.Copy(positions, x.moves)
	}
}

// upTo is the number of marks whose entries are not behind an offset.
func (ms *marks) upTo(offset uint64) (n int) {
	for n < ms.len() && ms.queue.At(n).offset <= offset {
		n++
	}
	return n
}

// applyFirst moves positions to where the first n marks lead.
func (ms *marks) applyFirst(n int, positions map[string]event.Position) {
	for i := range n {
		m, x := ms.at(i)
		if i+1 < n && x == nil && ms.queue.At(i+1).origin == m.origin {
			continue // what comes next leads further
		}
		ms.apply(i, positions)
	}
}

// drop removes the first n marks.
func (ms *marks) drop(n int) {
	for i := 0; i < n && len(ms.extras) > 0; i++ {
		delete(ms.extras, ms.first+uint64(i))
	}
	ms.first += uint64(n)
	ms.queue.Drop(n)
	if ms.len() == 0 {
		clear(ms.known)
		ms.origins = ms.origins[:0]
	}
}

func with(positions map[string]event.Position, source string, p event.Position) map[string]event.Position {
	if positions == nil {
		positions = make(map[string]event.Position, 1)
	}
	positions[source] = p
	return positions
}
