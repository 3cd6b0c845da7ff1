package delivery

import (
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/queue"
	"github.com/hindsight-events/hindsight/journal"
)

// window holds the entries that were read from the journal and are not acknowledged, in
// the order of the journal. They are completed in any order and acknowledged up to the
// oldest incomplete one.
type window struct {
	entries queue.Queue[entry]
	bytes   int // of all entries, in the journal
}

// entry locates a record. While a destination is down, the window holds some 100,000.
type entry struct {
	offset   uint64
	location journal.Location
	complete bool          // accepted, rejected, parked or not matched
	record   *event.Record // only of a record that the journal does not store
	next     *entry        // of the same stream
}

// add adds an entry. The result is valid until the entry is complete.
func (w *window) add(e entry) *entry {
	w.entries.Push(e)
	w.bytes += int(e.location.Bytes)
	return w.entries.At(w.entries.Len() - 1)
}

// advance removes the entries before the oldest incomplete one, and returns the offset
// of the last of them.
func (w *window) advance() (offset uint64, moved bool) {
	n := 0
	for n < w.entries.Len() && w.entries.At(n).complete {
		offset = w.entries.At(n).offset
		w.bytes -= int(w.entries.At(n).location.Bytes)
		n++
	}
	w.entries.Drop(n)
	if n > 0 && w.entries.Len() > 0 && w.entries.At(0).offset == offset {
		// Entries that share an offset are acknowledged together.
		offset--
	}
	return offset, n > 0
}

func (w *window) len() int { return w.entries.Len() }
