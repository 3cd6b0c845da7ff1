package input

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/extsort"
)

// Bounds of an Order, compressed: on disk some four million Events.
const (
	maxOnDisk   = 1 << 30
	maxInMemory = 32 << 20
)

// TimeSorter sorts records by time, in a few MB of memory. Records that do not fit are
// kept in an unlinked file in the directory for temporary files, or in memory if
// that fails. Records of the same time keep their order. An Order is not safe for
// concurrent use.
type TimeSorter struct {
	// Visit is called for each record in the order of time. Add or Flush returns its
	// error unchanged.
	Visit func(*format.Record) error
	// Overflow, if not nil, is called once when there are more records than an Order
	// holds: it has visited the records it held, though earlier ones may follow. err
	// is the reason why there was no file, or nil.
	Overflow func(err error)
	// Unbounded removes the bounds: the order matters more than the space it takes.
	Unbounded bool

	sorter     extsort.Sorter
	encoded    []byte
	overflowed bool
	most       int64 // for tests: instead of maxOnDisk
}

// Add adds a copy of a record.
func (o *TimeSorter) Add(r *format.Record) error {
	if o.sorter.Dir == "" {
		o.sorter.Dir, o.sorter.KeepEqual = os.TempDir(), true
	}
	whole := byte(0)
	if r.WholeEvent {
		whole = 1
	}
	var err error
	if o.encoded, err = r.AppendBinary(append(o.encoded[:0], whole)); err != nil {
		return err
	}
	o.sorter.Add(timeKey(r.Time), o.encoded)
	size, inMemory := o.sorter.Size()
	if o.Unbounded || size <= cmp.Or(o.most, maxOnDisk) && inMemory <= maxInMemory {
		return nil
	}
	if !o.overflowed && o.Overflow != nil {
		o.overflowed = true
		o.Overflow(o.sorter.FileErr())
	}
	return o.Flush()
}

// Flush visits all records that were added and not visited, and empties the Order.
func (o *TimeSorter) Flush() error {
	return o.sorter.Drain(func(_ uint64, b []byte) error {
		r := format.Record{WholeEvent: b[0] == 1}
		if err := r.UnmarshalBinary(b[1:]); err != nil {
			return fmt.Errorf("sort Events: %w", err)
		}
		return o.Visit(&r)
	})
}

// Close discards records that were added and not visited.
func (o *TimeSorter) Close() { o.sorter.Reset() }

// timeKey maps times to numbers of the same order. Times outside of the range of
// int64 nanoseconds come first or last.
func timeKey(t time.Time) uint64 {
	switch {
	case t.Year() < 1679:
		return 0
	case t.Year() > 2261:
		return math.MaxUint64
	}
	return uint64(t.UnixNano()) ^ 1<<63
}
