package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/hindsight-events/hindsight/journal/storage"
)

func TestConsumersReadAllRecordsInOrder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a", "b")})
		a, b := mustConsumer(t, j, "a"), mustConsumer(t, j, "b")
		mustAppend(t, j, records(1, 3, 10)...)
		mustAppend(t, j, records(4, 4, 10)...)
		first := read(t, a, 2)
		mustAppend(t, j, records(5, 300, 10)...)
		wantEntries(t, append(first, read(t, a, 298)...), "1-300")
		entries := read(t, b, 300)
		wantEntries(t, entries, "1-300")
		for i, e := range entries {
			if e.Offset != entries[0].Offset+uint64(i) {
				t.Fatalf("entry %d has offset %d, the first has %d", i, e.Offset, entries[0].Offset)
			}
		}
		want := record(7, 10)
		if got := entries[6].Record; got.Event.String() != want.Event.String() || !got.Time.Equal(want.Time) ||
			got.Position != want.Position || got.Decisions != want.Decisions {
			t.Errorf("read %+v, appended %+v", got, want)
		}
	})
}

func TestNextReturnsAtMostMax(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		mustAppend(t, j, records(1, 10, 10)...)
		entries, err := nextEntries(testContext(t), mustConsumer(t, j, "a"), 4)
		if err != nil {
			t.Fatal(err)
		}
		wantEntries(t, entries, "1-4")
	})
}

func TestNextWaits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		got := make(chan []Entry, 1)
		go func() {
			entries, _ := nextEntries(testContext(t), c, 10)
			got <- entries
		}()
		mustAppend(t, j, record(1, 10))
		wantEntries(t, <-got, "1")
	})
}

func TestNextReturnsExistingRecordsAfterCancellation(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, record(1, 10))
		entries, err := nextEntries(cancelled(), c, 10)
		if err != nil {
			t.Fatalf("with a record: %v", err)
		}
		wantEntries(t, entries, "1")
		if _, err := nextEntries(cancelled(), c, 10); !errors.Is(err, context.Canceled) {
			t.Errorf("without a record: %v, want %v", err, context.Canceled)
		}
	})
}

func TestUnacknowledgedRecordsAreReadAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, records(1, 10, 10)...)
		entries := read(t, c, 8)
		mustAck(t, c, entries[4].Offset)
		wantEntries(t, read(t, mustConsumer(t, j, "a"), 5), "6-10")
	})
}

func TestAck(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, records(1, 10, 10)...)
		entries := read(t, c, 5)
		if err := c.Ack(entries[4].Offset + 1); err == nil {
			t.Error("acknowledged an unread record")
		}
		mustAck(t, c, entries[3].Offset)
		mustAck(t, c, entries[1].Offset) // late: no effect
		if got := j.Stats().Consumers["a"].Behind; got != 6 {
			t.Errorf("behind by %d records, want 6", got)
		}
		if got := j.Positions("a")[""].Version; got != 4 {
			t.Errorf("cursor is at version %d, want 4", got)
		}
	})
}

func TestRecordsForOneConsumer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a", "b")})
		a, b := mustConsumer(t, j, "a"), mustConsumer(t, j, "b")
		toB := records(2, 3, 10)
		for i := range toB {
			toB[i].OnlySink = "b"
		}
		mustAppend(t, j, record(10, 10))
		mustAppend(t, j, toB...)
		end := positionOnly("", 9)
		end.OnlySink = "b"
		mustAppend(t, j, end)
		if got := j.Tail("").Version; got != 10 {
			t.Errorf("tail is %d, want 10: records for b alone do not move it", got)
		}
		got := read(t, a, 1)
		ackAll(t, a, got)
		wantEntries(t, append(got, readAll(t, a)...), "10")
		got = read(t, b, 3)
		wantEntries(t, got, "10 2-3")
		ackAll(t, b, got)
		readAll(t, b)
		if a, b := j.Positions("a")[""].Version, j.Positions("b")[""].Version; a != 10 || b != 9 {
			t.Errorf("cursors are at %d and %d, want 10 and 9", a, b)
		}
		s := j.Stats()
		if s.Consumers["a"].Behind != 0 || s.Consumers["b"].Behind != 0 {
			t.Errorf("stats after the last acknowledgement: %+v", s.Consumers)
		}
	})
}

func TestStuckConsumerDelaysNoOther(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("hung", "well")})
		hung, well := mustConsumer(t, j, "hung"), mustConsumer(t, j, "well")
		for v := uint64(1); v <= 1000; v += 10 {
			mustAppend(t, j, records(v, v+9, 100)...)
			if v == 1 {
				read(t, hung, 1) // and never again
			}
			ackAll(t, well, read(t, well, 10))
		}
		s := j.Stats()
		if s.Consumers["well"].Behind != 0 || s.Consumers["hung"].Behind != 1000 || s.Records != 1000 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// Segments are pinned while records in them are in flight, and no longer.
func TestSegmentsAreUnpinned(t *testing.T) {
	t.Parallel()
	fs := &countingFS{FS: storage.NewMemory()}
	j := mustOpen(t, fs, Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
	c := mustConsumer(t, j, "a")
	before := fs.open.Load()
	for v := uint64(1); v <= 300; v++ {
		mustAppend(t, j, record(v, smallRecord))
		if v%10 == 0 {
			ackAll(t, c, read(t, c, 10))
		}
	}
	if n := fs.open.Load() - before; n > 2 { // the reader's segment, pinned too
		t.Errorf("%d more files are open after the last acknowledgement", n)
	}
	must(t, j.Close())
	if n := fs.open.Load(); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

// countingFS counts open files.
type countingFS struct {
	storage.FS
	open atomic.Int32
}

func (c *countingFS) Create(name string) (storage.File, error) { return c.count(c.FS.Create(name)) }
func (c *countingFS) Open(name string) (storage.File, error)   { return c.count(c.FS.Open(name)) }

func (c *countingFS) count(f storage.File, err error) (storage.File, error) {
	if err == nil {
		c.open.Add(1)
		f = &countedFile{File: f, open: &c.open}
	}
	return f, err
}

type countedFile struct {
	storage.File
	open *atomic.Int32
}

func (f *countedFile) Close() error {
	f.open.Add(-1)
	return f.File.Close()
}

func TestRead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		const n = 300 // in several segments
		j := open(Options{MaxBytes: n * 2 * smallRecord, Consumers: consumers("a")})
		for v := uint64(1); v < n; v += 10 {
			mustAppend(t, j, records(v, v+9, smallRecord)...)
		}
		mustAppend(t, j, record(n+1, 200<<10))
		c := mustConsumer(t, j, "a")
		entries := read(t, c, n+1)
		mustLookUp(t, c, entries...)
		var some []Entry
		for i := 0; i < len(entries); i += 1 + i%7 {
			some = append(some, entries[i])
		}
		mustLookUp(t, c, some...)
		mustAck(t, c, entries[n/2].Offset)
		random := rand.New(rand.NewPCG(1, 2))
		random.Shuffle(n/2, func(i, j int) { entries[n/2+1+i], entries[n/2+1+j] = entries[n/2+1+j], entries[n/2+1+i] })
		mustLookUp(t, c, entries[n/2+1:]...)
	})
}
