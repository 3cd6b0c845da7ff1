package journal

import (
	"math"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/queue"
)

// step is one step of a consumer along the log: an entry, or records that are not for it. It
// moves the cursor once it is acknowledged.
type step struct {
	offset   uint64 // of the entry; 0: none
	next     uint64 // offset after the step
	appended int64  // nanoseconds since 1970
	source   string
	moves    bool // source to position
	position event.Position
}

// inflight are the steps of a consumer that are not acknowledged, oldest first. The first one has
// an entry.
type inflight struct {
	steps  queue.Queue[packedStep]
	shared []sharedFields
	known  map[sharedFields]uint32 // index in shared
}

// packedStep has 32 bytes and no pointers: a consumer has up to 100,000 of them. Plain steps took
// 9 MB more.
type packedStep struct {
	next     uint64 // offset after the step; an entry is the last record of its step
	appended int64
	version  uint64 // of the position
	seconds  uint32 // of the position, since 1970; 0: none
	shared   uint32 // twice the index in inflight.shared, plus 1 if the step has an entry
}

func (p *packedStep) hasEntry() bool { return p.shared&1 != 0 }

// until reports whether the step is acknowledged with the entries up to an offset.
func (p *packedStep) until(offset uint64) bool { return !p.hasEntry() || p.next <= offset+1 }

func (f *inflight) sharedOf(p *packedStep) *sharedFields { return &f.shared[p.shared/2] }

// sharedFields are equal in most consecutive steps.
type sharedFields struct {
	source      string
	moves       bool
	epoch       event.Epoch
	listVersion uint64
}

func (f *inflight) add(s *step) {
	p := packedStep{next: s.next, appended: s.appended, version: s.position.Version}
	if seconds := s.position.Time.Unix(); seconds > 0 && seconds <= math.MaxUint32 {
		p.seconds = uint32(seconds)
	}
	p.shared = 2 * f.share(sharedFields{s.source, s.moves, s.position.Epoch, s.position.ListVersion})
	if s.offset != 0 {
		p.next = s.offset + 1
		p.shared++
	}
	if !f.merge(&p) {
		f.steps.Push(p)
	}
	if s.offset != 0 && s.next > p.next { // records for other consumers follow
		f.steps.Push(packedStep{next: s.next, shared: 2 * f.share(sharedFields{source: s.source})})
	}
}

// merge adds a step without an entry to the steps after the last entry, of which each source has one
// at most: a consumer may wait for long while positions move.
func (f *inflight) merge(p *packedStep) bool {
	last := f.steps.Len() - 1
	if p.hasEntry() || last < 0 || f.steps.At(last).hasEntry() {
		return false
	}
	shared := f.sharedOf(p)
	if !shared.moves {
		f.steps.At(last).next = p.next
		return true
	}
	for i := last; i >= 0 && !f.steps.At(i).hasEntry(); i-- {
		s := f.steps.At(i)
		if other := f.sharedOf(s); other.moves && other.source == shared.source {
			s.version, s.seconds, s.shared = p.version, p.seconds, p.shared
			f.steps.At(last).next = p.next
			return true
		}
	}
	return false
}

func (f *inflight) share(fields sharedFields) uint32 {
	if n := f.steps.Len(); n > 0 {
		if last := f.steps.At(n-1).shared / 2; f.shared[last] == fields {
			return last
		}
	}
	i, ok := f.known[fields]
	if !ok {
		if f.known == nil {
			f.known = make(map[sharedFields]uint32)
		}
		i = uint32(len(f.shared))
		f.shared = append(f.shared, fields)
		f.known[fields] = i
	}
	return i
}

// oldest returns the offset and time of the oldest entry.
func (f *inflight) oldest() (offset uint64, appended time.Time, ok bool) {
	if f.steps.Len() == 0 {
		return 0, time.Time{}, false
	}
	s := f.steps.At(0)
	return s.next - 1, time.Unix(0, s.appended), true
}

// acknowledge drops the entries up to an offset, with the steps after them that have none, and
// moves positions. It returns the offset after the last step, or 0 if there was none.
func (f *inflight) acknowledge(offset uint64, positions map[string]event.Position) (next uint64) {
	n := f.apply(offset, positions)
	if n == 0 {
		return 0
	}
	next = f.steps.At(n - 1).next
	f.steps.Drop(n)
	if f.steps.Len() == 0 {
		clear(f.known)
		f.shared = f.shared[:0]
	}
	return next
}

// apply moves positions as the entries up to an offset do, and returns the number of steps.
func (f *inflight) apply(offset uint64, positions map[string]event.Position) (n int) {
	for ; n < f.steps.Len() && f.steps.At(n).until(offset); n++ {
		s := f.steps.At(n)
		if n+1 < f.steps.Len() && f.steps.At(n+1).shared == s.shared && f.steps.At(n+1).until(offset) {
			continue // the next step moves the same source
		}
		if shared := f.sharedOf(s); shared.moves {
			positions[shared.source] = f.position(s)
		}
	}
	return n
}

func (f *inflight) position(s *packedStep) event.Position {
	shared := f.sharedOf(s)
	p := event.Position{Epoch: shared.epoch, Version: s.version, ListVersion: shared.listVersion}
	if s.seconds != 0 {
		p.Time = time.Unix(int64(s.seconds), 0).UTC()
	}
	return p
}
