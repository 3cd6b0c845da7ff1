package sink

// window knows which of the journal's entries have been settled (accepted,
// refused or not wanted) and how far all have been, which is how far they may be
// acknowledged.
type window struct {
	entries []entry // oldest first
	first   uint64  // number of entries[0]
}

type entry struct {
	offset  uint64
	settled bool
}

// add adds an entry that has not been settled and returns its number.
func (w *window) add(offset uint64) uint64 {
	w.entries = append(w.entries, entry{offset: offset})
	return w.first + uint64(len(w.entries)) - 1
}

// settle marks an entry as settled.
func (w *window) settle(number uint64) { w.entries[number-w.first].settled = true }

// advance lets go of the entries before the oldest one that is not settled, and
// returns the offset up to which they reach, if there were any.
func (w *window) advance() (offset uint64, moved bool) {
	n := 0
	for n < len(w.entries) && w.entries[n].settled {
		offset = w.entries[n].offset
		n++
	}
	w.first += uint64(n)
	w.entries = w.entries[n:]
	if n > 0 && len(w.entries) > 0 && w.entries[0].offset == offset {
		// Entries that share an offset are acknowledged together.
		offset--
	}
	return offset, n > 0
}

func (w *window) len() int { return len(w.entries) }
