package journal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
	"github.com/hindsight-events/hindsight/test/wait"
)

func TestTail(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		if got := j.Tail(""); !got.IsZero() {
			t.Errorf("tail of an empty journal is %v", got)
		}
		first, second := record(7, 10), record(9, 10)
		first.Source, second.Source = "loki", "tempo"
		mustAppend(t, j, first, second, positionOnly("loki", 8))
		for source, want := range map[string]uint64{"loki": 8, "tempo": 9, "mimir": 0} {
			if got := j.Tail(source).Version; got != want {
				t.Errorf("tail of %s is %d, want %d", source, got, want)
			}
		}
	})
}

func TestPositionsMoveTheCursor(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, record(1, 10), positionOnly("", 2), record(3, 10))
		mustAppend(t, j, positionOnly("", 4))
		mustAppend(t, j, positionOnly("other", 5), positionOnly("", 6))
		mustAppend(t, j, record(7, 10), positionOnly("", 8))
		entries := read(t, c, 3)
		var got []uint64
		for _, e := range entries {
			got = append(got, version(e))
		}
		if fmt.Sprint(got) != "[1 3 7]" {
			t.Errorf("read versions %v, want [1 3 7]", got)
		}
		ackAll(t, c, entries)
		go nextEntries(testContext(t), c, 1) // as an idle delivery does
		wait.Until(t, "the cursor is at the last positions", func() bool {
			p := j.Positions("a")
			return p[""].Version == 8 && p["other"].Version == 5
		})
		if behind := j.Stats().Consumers["a"].Behind; behind != 0 {
			t.Errorf("behind by %d records", behind)
		}
	})
}

func TestPositionsAreCombined(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		mustAppend(t, j, record(1, 10))
		before := j.Stats().Bytes
		for v := uint64(2); v < 2000; v++ {
			mustAppend(t, j, positionOnly("", v))
		}
		mustAppend(t, j, record(2000, 10))
		if grown := j.Stats().Bytes - before; grown > 20_000 {
			t.Errorf("2000 positions and a record take %d bytes", grown)
		}
	})
}

func TestPositionDoesNotGoBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		mustAppend(t, j, positionOnly("", 2))
		mustAppend(t, j, record(3, 10))
		time.Sleep(2 * time.Second) // longer than flushInterval
		j.Close()
		j = mustOpen(t, disk, Options{Consumers: consumers("a")})
		defer j.Close()
		if got := j.Tail("").Version; got != 3 {
			t.Errorf("tail is %d, want 3", got)
		}
	})
}

func TestPositionsOutliveRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		for v := uint64(1); v <= 200; v++ {
			r := record(v, smallRecord)
			r.Source = []string{"loki", "tempo"}[v%2]
			mustAppend(t, j, r)
			ackAll(t, c, read(t, c, 1))
		}
		mustAppend(t, j, positionOnly("mimir", 300), positionOnly("loki", 301))
		want := map[string]uint64{"loki": 301, "tempo": 199, "mimir": 300}
		for range 3 {
			j.Close()
			j = mustOpen(t, disk, Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
			got := map[string]uint64{}
			for source := range want {
				got[source] = j.Tail(source).Version
			}
			if !maps.Equal(got, want) {
				t.Errorf("tails after the restart: %v, want %v", got, want)
			}
			if p := j.Tail("loki"); p != positionAt(301) {
				t.Errorf("position is %+v, want %+v", p, positionAt(301))
			}
		}
		j.Close()
	})
}

// Positions that move while an entry is in flight take bounded memory.
func TestPositionsWhileAnEntryIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, storage.NewMemory(), Options{Consumers: consumers("a")})
		defer j.Close()
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, record(1, 10))
		entries := read(t, c, 1)
		for v := uint64(2); v < 100; v++ {
			mustAppend(t, j, positionOnly("", v), positionOnly("loki", v), positionOnly("tempo", v))
			time.Sleep(2 * flushInterval)
			readAll(t, c)
		}
		if n := c.inflight.steps.Len(); n > 4 {
			t.Errorf("%d steps are in flight", n)
		}
		ackAll(t, c, entries)
		for _, source := range []string{"", "loki", "tempo"} {
			if p := j.Positions("a")[source]; p != positionAt(99) {
				t.Errorf("position of source %q is %v, want 99", source, p)
			}
		}
		if n := j.Stats().Consumers["a"].Behind; n != 0 {
			t.Errorf("behind by %d records", n)
		}
	})
}

// Steps in flight are packed without loss.
func TestCursorHasWholePositions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a", "b")})
		a := mustConsumer(t, j, "a")
		random := rand.New(rand.NewPCG(1, 2))
		times := []time.Time{{}, time.Unix(1563534000, 0), time.Unix(1<<32-1, 0)}
		want := map[string]event.Position{}
		for v := uint64(1); v <= 500; v++ {
			r := record(v, 10)
			r.Source = []string{"", "team-a", "team-b"}[random.IntN(3)]
			r.Position.Epoch.Restores = random.IntN(2)
			r.Position.ListVersion = v * uint64(random.IntN(2))
			if r.Position.Time = times[random.IntN(len(times))]; !r.Position.Time.IsZero() {
				r.Position.Time = r.Position.Time.UTC()
			}
			switch random.IntN(6) {
			case 0:
				r.OnlySink = "b"
			case 1:
				r.Event = nil
			}
			if r.OnlySink == "" {
				want[r.Source] = r.Position
			}
			mustAppend(t, j, r)
			if v%50 == 0 {
				// A position without a record would wait for the next record.
				for _, source := range []string{"", "team-a", "team-b"} {
					last := record(v, 10)
					last.Source, last.Position = source, want[source]
					mustAppend(t, j, last)
				}
				entries := readAll(t, a)
				for _, e := range entries {
					mustAck(t, a, e.Offset)
				}
				if got := j.Positions("a"); !maps.Equal(got, want) {
					t.Fatalf("cursor after %d is\n%v, want\n%v", v, got, want)
				}
				if f := a.inflight; f.steps.Len()+len(f.shared)+len(f.known) > 0 {
					t.Fatalf("left after the last acknowledgement: %+v", f)
				}
			}
		}
	})
}
