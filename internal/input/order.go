package input

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/hindsight-events/hindsight/internal/extsort"
	"github.com/hindsight-events/hindsight/query/line"
)

// What an Order holds at the most, compressed: on disk some four million Events.
const (
	maxOnDisk   = 1 << 30
	maxInMemory = 32 << 20
)

// Order puts records into the order of their times, in a few MB of memory: what
// does not fit is kept in an unlinked file in the directory for temporary files,
// or in memory if that fails. Records of the same time stay in their order. It is
// for one goroutine.
type Order struct {
	// Visit is called for each record in the order of time. Its error ends Add or
	// Flush and is returned as it is.
	Visit func(*line.Record) error
	// Overflow is told, once, that there were more records than an Order holds: it
	// has passed on those it had, though earlier ones may follow. Nil: nobody.
	Overflow func(err error)
	// Unbounded is set where order counts for more than the room that it takes.
	Unbounded bool

	sorter     extsort.Sorter
	encoded    []byte
	overflowed bool
	most       int64 // for tests: instead of maxOnDisk
}

// Add adds a record, which can be changed afterwards.
func (o *Order) Add(r *line.Record) error {
	if o.sorter.Dir == "" {
		o.sorter.Dir, o.sorter.KeepEqual = os.TempDir(), true
	}
	whole := byte(0)
	if r.Whole {
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

// Flush visits all that was added, and holds nothing any more.
func (o *Order) Flush() error {
	return o.sorter.Drain(func(_ uint64, b []byte) error {
		r := line.Record{Whole: b[0] == 1}
		if err := r.UnmarshalBinary(b[1:]); err != nil {
			return fmt.Errorf("sort Events: %w", err)
		}
		return o.Visit(&r)
	})
}

// Close lets go of what was added and not visited.
func (o *Order) Close() { o.sorter.Reset() }

// timeKey is a number in the order of times; those out of the range of int64
// nanoseconds come first or last.
func timeKey(t time.Time) uint64 {
	switch {
	case t.Year() < 1679:
		return 0
	case t.Year() > 2261:
		return math.MaxUint64
	}
	return uint64(t.UnixNano()) ^ 1<<63
}
