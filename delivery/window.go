package delivery

import (
	"math"

	"github.com/hindsight-events/hindsight/internal/queue"
	"github.com/hindsight-events/hindsight/journal"
)

// window holds what was taken from the journal and not acknowledged: where each
// entry is, not what it says. It knows which have been settled (accepted, refused
// or not wanted) and how far all have been, which is how far they may be
// acknowledged. Entries are numbered from 0.
type window struct {
	entries queue.Queue[entry]
	first   uint64 // number of the oldest
	bytes   int    // of all entries, in the journal
}

// entry takes 24 bytes: there are some 100,000 of them while a destination is
// behind.
type entry struct {
	offset uint64
	place  journal.Location
	next   int32 // from its number to that of the next one of its stream; or settled
}

// settled is the entry.next of an entry that belongs to no stream any more.
const settled = math.MinInt32

// add adds an entry that has not been settled and returns its number.
func (w *window) add(e entry) uint64 {
	w.entries.Push(e)
	w.bytes += int(e.place.Bytes)
	return w.first + uint64(w.entries.Len()) - 1
}

// at returns the entry with a number.
func (w *window) at(number uint64) *entry { return w.entries.At(int(number - w.first)) }

// advance lets go of the entries before the oldest one that is not settled, and
// returns the offset up to which they reach, if there were any.
func (w *window) advance() (offset uint64, moved bool) {
	n := 0
	for n < w.entries.Len() && w.entries.At(n).next == settled {
		offset = w.entries.At(n).offset
		w.bytes -= int(w.entries.At(n).place.Bytes)
		n++
	}
	w.first += uint64(n)
	w.entries.Drop(n)
	if n > 0 && w.entries.Len() > 0 && w.entries.At(0).offset == offset {
		// Entries that share an offset are acknowledged together.
		offset--
	}
	return offset, n > 0
}

func (w *window) len() int { return w.entries.Len() }
