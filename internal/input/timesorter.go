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

// Limits of a TimeSorter, compressed: on disk some four million Events.
const (
	maxOnDisk   = 1 << 30
	maxInMemory = 32 << 20
)

// TimeSorter sorts records by time, in a few MB of memory. Further records are kept in an
// unlinked temporary file, or in memory if that fails. Records of the same time keep their
// order. A TimeSorter is not safe for concurrent use.
type TimeSorter struct {
	// Visit is called for each record in the order of time. Add and Flush return its
	// error unchanged.
	Visit func(*format.Record) error
	// Overflow, if not nil, is called once when the limit is exceeded. The records so
	// far are visited, although earlier ones may follow. err is the error of the file,
	// if any.
	Overflow func(err error)
	// Unbounded removes the limits.
	Unbounded bool

	sorter     extsort.Sorter
	encoded    []byte
	overflowed bool
	limit      int64 // in tests, instead of maxOnDisk
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
	if o.Unbounded || size <= cmp.Or(o.limit, maxOnDisk) && inMemory <= maxInMemory {
		return nil
	}
	if !o.overflowed && o.Overflow != nil {
		o.overflowed = true
		o.Overflow(o.sorter.FileErr())
	}
	return o.Flush()
}

// Flush visits the remaining records and empties the TimeSorter.
func (o *TimeSorter) Flush() error {
	return o.sorter.Drain(func(_ uint64, b []byte) error {
		r := format.Record{WholeEvent: b[0] == 1}
		if err := r.UnmarshalBinary(b[1:]); err != nil {
			return fmt.Errorf("sort Events: %w", err)
		}
		return o.Visit(&r)
	})
}

// Close discards the remaining records.
func (o *TimeSorter) Close() { o.sorter.Reset() }

// timeKey maps times to numbers of the same order. Times out of the range of int64
// nanoseconds are first or last.
func timeKey(t time.Time) uint64 {
	switch {
	case t.Year() < 1679:
		return 0
	case t.Year() > 2261:
		return math.MaxUint64
	}
	return uint64(t.UnixNano()) ^ 1<<63
}
