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

// packedStep has 40 bytes and no pointers: a consumer has up to 100,000 of them. Plain steps took
// 9 MB more.
type packedStep struct {
	offset   uint64
	next     uint64
	appended int64
	version  uint64 // of the position
	seconds  uint32 // of the position, since 1970; 0: none
	shared   uint32 // index in inflight.shared
}

// sharedFields are equal in most consecutive steps.
type sharedFields struct {
	source      string
	moves       bool
	epoch       event.Epoch
	listVersion uint64
}

func (f *inflight) add(s *step) {
	p := packedStep{offset: s.offset, next: s.next, appended: s.appended, version: s.position.Version}
	if seconds := s.position.Time.Unix(); seconds > 0 && seconds <= math.MaxUint32 {
		p.seconds = uint32(seconds)
	}
	p.shared = f.share(sharedFields{s.source, s.moves, s.position.Epoch, s.position.ListVersion})
	if !f.merge(&p) {
		f.steps.Push(p)
	}
}

// merge adds a step without an entry to the steps after the last entry, of which each source has one
// at most: a consumer may wait for long while positions move.
func (f *inflight) merge(p *packedStep) bool {
	last := f.steps.Len() - 1
	if p.offset != 0 || last < 0 {
		return false
	}
	shared := &f.shared[p.shared]
	if !shared.moves {
		f.steps.At(last).next = p.next
		return true
	}
	for i := last; i >= 0 && f.steps.At(i).offset == 0; i-- {
		s := f.steps.At(i)
		if other := &f.shared[s.shared]; other.moves && other.source == shared.source {
			s.version, s.seconds, s.shared = p.version, p.seconds, p.shared
			f.steps.At(last).next = p.next
			return true
		}
	}
	return false
}

func (f *inflight) share(fields sharedFields) uint32 {
	if n := f.steps.Len(); n > 0 {
		if last := f.steps.At(n - 1).shared; f.shared[last] == fields {
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
	return s.offset, time.Unix(0, s.appended), true
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
	for ; n < f.steps.Len() && f.steps.At(n).offset <= offset; n++ {
		s := f.steps.At(n)
		if n+1 < f.steps.Len() && f.steps.At(n+1).shared == s.shared && f.steps.At(n+1).offset <= offset {
			continue // the next step moves the same source
		}
		if shared := &f.shared[s.shared]; shared.moves {
			positions[shared.source] = f.position(s)
		}
	}
	return n
}

func (f *inflight) position(s *packedStep) event.Position {
	shared := &f.shared[s.shared]
	p := event.Position{Epoch: shared.epoch, Version: s.version, ListVersion: shared.listVersion}
	if s.seconds != 0 {
		p.Time = time.Unix(int64(s.seconds), 0).UTC()
	}
	return p
}
