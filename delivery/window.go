package delivery

import (
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/queue"
	"github.com/hindsight-events/hindsight/journal"
)

// window holds the entries that were read from the journal and are not acknowledged, in
// the order of the journal. They are completed in any order and acknowledged up to the
// oldest incomplete one. Entries are numbered from 0.
type window struct {
	entries  queue.Queue[entry]
	first    uint64                   // number of the oldest entry
	bytes    int                      // of all entries, in the journal
	unstored map[uint64]*event.Record // by number: records that the journal does not store
}

// entry locates a record. It has 24 bytes and no pointers: while a destination is down, the
// window holds some 100,000.
type entry struct {
	offset   uint64
	location journal.Location
	next     int32 // distance to the next entry of the stream, or completed
}

// completed is the entry.next of an accepted, rejected, parked or not matching record.
const completed = -1

// add adds an entry and returns its number. r is nil for a record that the journal stores.
func (w *window) add(e entry, r *event.Record) (number uint64) {
	number = w.first + uint64(w.entries.Len())
	w.entries.Push(e)
	w.bytes += int(e.location.Bytes)
	if r != nil {
		if w.unstored == nil {
			w.unstored = make(map[uint64]*event.Record)
		}
		w.unstored[number] = r
	}
	return number
}

// at returns the entry with a number.
func (w *window) at(number uint64) *entry { return w.entries.At(int(number - w.first)) }

// complete completes an entry and returns the number of the next one of its stream.
func (w *window) complete(number uint64) (next uint64) {
	e := w.at(number)
	next = number + uint64(e.next)
	e.next = completed
	delete(w.unstored, number)
	return next
}

// advance removes the entries before the oldest incomplete one, and returns the offset
// of the last of them.
func (w *window) advance() (offset uint64, moved bool) {
	n := 0
	for n < w.entries.Len() && w.entries.At(n).next == completed {
		offset = w.entries.At(n).offset
		w.bytes -= int(w.entries.At(n).location.Bytes)
		n++
	}
	w.entries.Drop(n)
	w.first += uint64(n)
	if n > 0 && w.entries.Len() > 0 && w.entries.At(0).offset == offset {
		// Entries that share an offset are acknowledged together.
		offset--
	}
	return offset, n > 0
}

func (w *window) len() int { return w.entries.Len() }
