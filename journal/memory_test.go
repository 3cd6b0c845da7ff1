package journal

import (
	"context"
	"runtime"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/offheap"
)

// Neither the first nor the second read of a record allocates.
func TestReadingDoesNotAllocate(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		for range 20 {
			mustAppend(t, j, records(1, 512, 200)...)
		}
		var found []Location
		var last uint64
		visit := func(e Entry) { found, last = append(found, e.Location), e.Offset }
		again := func(*event.Record) {}
		next := func() {
			found = found[:0]
			if _, err := c.Next(context.Background(), 512, visit); err != nil {
				t.Fatal(err)
			}
			if err := c.Read(found, again); err != nil {
				t.Fatal(err)
			}
		}
		for range 9 {
			next()
		}
		mustAck(t, c, last)
		// The queue of steps in flight grows by chunks. Other goroutines allocate too, so the
		// lowest count is compared.
		allocations := testing.AllocsPerRun(1, next)
		for range 3 {
			allocations = min(allocations, testing.AllocsPerRun(1, next))
		}
		if allocations > 50 {
			t.Errorf("512 records allocate %v times", allocations)
		}
	})
}

func TestMemoryDoesNotGrowWithTheBacklog(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + uint64(offheap.InUse())
	}
	// A capacity of 8 MiB may take that, and slack for buffers and garbage.
	const bound, slack = 8 << 20, 6 << 20
	cases := []struct {
		name    string
		open    func() *Journal
		allowed uint64
	}{
		{"memory, to the bound", func() *Journal {
			j, err := NewMemory(Options{MaxBytes: bound, Consumers: []ConsumerOptions{{Name: "a", WhenFull: DropOldest}}})
			must(t, err)
			t.Cleanup(func() { j.Close() })
			return j
		}, bound + slack},
		{"disk", func() *Journal {
			return openDir(t, t.TempDir(), Options{MaxBytes: 1 << 30, Consumers: consumers("a")})
		}, slack},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			j := tc.open()
			c := mustConsumer(t, j, "a")
			mustAppend(t, j, records(1, 10, 200)...)
			read(t, c, 5)
			before := heap()
			for range 100 { // 20 MB
				mustAppend(t, j, records(1, 512, 200)...)
			}
			if after := heap(); after > before+tc.allowed {
				t.Errorf("a backlog of 51,200 records takes %d bytes of memory", after-before)
			}
			for range 50 {
				nextEntries(cancelled(), c, 100)
			}
			if after := heap(); after > before+tc.allowed+2<<20 {
				t.Errorf("reading the backlog takes %d bytes of memory", after-before)
			}
		})
	}
}
