package journal

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

func TestDropOldest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		var log logBuffer
		var mu sync.Mutex
		dropped := map[string]int{}
		j := open(Options{
			MaxBytes: smallCapacity, Namespace: "monitoring", Logger: log.logger(),
			Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}, {Name: "keen"}},
			OnDrop: func(consumer string, cause event.Cause, n int) {
				mu.Lock()
				defer mu.Unlock()
				dropped[consumer+" "+string(cause)] += n
			},
		})
		lazy, keen := mustConsumer(t, j, "lazy"), mustConsumer(t, j, "keen")
		mustAppend(t, j, records(1, 5, smallRecord)...)
		inFlight := read(t, lazy, 5)
		mustAck(t, lazy, inFlight[1].Offset)
		for v := uint64(6); v <= 300; v++ {
			mustAppend(t, j, record(v, smallRecord))
			ackAll(t, keen, readAll(t, keen))
		}
		if s := j.Stats(); s.Bytes > s.MaxBytes {
			t.Errorf("%d bytes used, capacity is %d", s.Bytes, s.MaxBytes)
		}
		mustAck(t, lazy, inFlight[4].Offset) // its segment is deleted, but it was delivered
		entries := readAll(t, lazy)
		gap := entries[0].Record
		first := version(entries[1])
		wantEntries(t, entries, fmt.Sprintf("overflow(5..%d missed %d) %d-300", first-1, first-6, first))
		if gap.OnlySink != "lazy" || gap.Event.Namespace != "monitoring" || gap.Position.Version != first-1 {
			t.Errorf("gap record: %+v", gap)
		}
		if first < 200 {
			t.Errorf("the oldest record is %d, want most records dropped", first)
		}
		mu.Lock()
		if want := int(first - 6); dropped["lazy overflow"] != want || len(dropped) != 1 {
			t.Errorf("counted as dropped: %v, want %d for lazy", dropped, want)
		}
		mu.Unlock()
		ackAll(t, lazy, entries)
		if got := j.Stats().Consumers["lazy"].Behind; got != 0 {
			t.Errorf("behind by %d after the last acknowledgement", got)
		}
		if log.count("dropping the oldest records") != 1 || log.count("sink has caught up") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestDropOldestBySource(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		lazy := mustConsumer(t, j, "lazy")
		for v := uint64(1); v <= 300; v++ {
			r := record(v, smallRecord)
			r.Source = []string{"loki", "tempo", "tempo"}[v%3]
			other := record(1000+v, 10)
			other.OnlySink = "other"
			mustAppend(t, j, r, other)
		}
		entries, err := nextEntries(testContext(t), lazy, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 2 || entries[0].Record.Source != "loki" || entries[1].Record.Source != "tempo" {
			t.Fatalf("got %s, want a gap record for each source in one call", summary(entries))
		}
		first := version(read(t, lazy, 1)[0])
		loki, tempo := 0, 0
		for v := uint64(1); v < first; v++ {
			if v%3 == 0 {
				loki++
			} else {
				tempo++
			}
		}
		for i, want := range []int{loki, tempo} {
			if got := entries[i].Record.Event.Annotations["hindsight/missed_at_least"]; got != fmt.Sprint(want) {
				t.Errorf("%s missed %s, want %d", entries[i].Record.Source, got, want)
			}
		}
	})
}

func TestDropOldestBesideBlock(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}, {Name: "keen"}}})
		lazy, keen := mustConsumer(t, j, "lazy"), mustConsumer(t, j, "keen")
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(testContext(t))
		go func() {
			var err error
			for v := uint64(1); err == nil; v++ {
				err = j.Append(ctx, []event.Record{record(v, smallRecord)})
			}
			done <- err
		}()
		<-waitBlocked(j, done)
		cancel()
		<-done
		last := j.Tail("").Version
		wantEntries(t, readAll(t, lazy), fmt.Sprintf("1-%d", last))
		wantEntries(t, readAll(t, keen), fmt.Sprintf("1-%d", last))
	})
}

func TestDropOldestInFlight(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		mustAppend(t, j, records(1, 20, smallRecord)...)
		mustAppend(t, j, records(21, 25, smallRecord)...)
		mustAppend(t, j, records(26, 40, smallRecord)...)
		read(t, mustConsumer(t, j, "lazy"), 40)
		mustAppend(t, j, records(41, 55, smallRecord)...)
		// Records in flight are read again, except those that were dropped.
		wantEntries(t, readAll(t, mustConsumer(t, j, "lazy")), "overflow(..20 missed 0) 21-55")
	})
}

func TestDropOldestTwice(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		for v := uint64(1); v <= 500; v++ {
			mustAppend(t, j, record(v, smallRecord))
		}
		lazy := mustConsumer(t, j, "lazy")
		entries := readAll(t, lazy)
		first := version(entries[1])
		want := fmt.Sprintf("overflow(..%d missed %d) %d-500", first-1, first-1, first)
		wantEntries(t, entries, want)
		// Without an acknowledgement, the gap is declared again.
		again := readAll(t, mustConsumer(t, j, "lazy"))
		wantEntries(t, again, want)
		if a, b := entries[0].Record.Event.String(), again[0].Record.Event.String(); a != b {
			t.Errorf("the gap record changed from\n%s\nto\n%s", a, b)
		}
	})
}

func TestDropOldestAcrossRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{MaxBytes: smallCapacity, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}}
	j := openDir(t, dir, o)
	lazy := mustConsumer(t, j, "lazy")
	mustAppend(t, j, records(1, 10, smallRecord)...)
	mustAck(t, lazy, read(t, lazy, 10)[3].Offset) // 5-10 are in flight
	for v := uint64(11); v <= 300; v++ {
		mustAppend(t, j, record(v, smallRecord))
	}
	j.Close()
	j = openDir(t, dir, o)
	lazy = mustConsumer(t, j, "lazy")
	entries := readAll(t, lazy)
	first := version(entries[1])
	want := fmt.Sprintf("overflow(4..%d missed %d) %d-300", first-1, first-11, first) // at least
	wantEntries(t, entries, want)
	j.Close()
	j = openDir(t, dir, o)
	again := readAll(t, mustConsumer(t, j, "lazy"))
	wantEntries(t, again, want)
	if again[0].Record.Event.String() != entries[0].Record.Event.String() {
		t.Error("the gap record is another one after the restart")
	}
}

// Records that were visited before they were dropped can still be sent.
func TestReadAfterDropOldest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		lazy := mustConsumer(t, j, "lazy")
		mustAppend(t, j, records(1, 20, smallRecord)...)
		found := read(t, lazy, 20)
		for v := uint64(21); v <= 300; v++ {
			mustAppend(t, j, record(v, smallRecord))
		}
		mustLookUp(t, lazy, found...)
		mustAck(t, lazy, found[19].Offset)
		entries := readAll(t, lazy)
		first := version(entries[1])
		wantEntries(t, entries, fmt.Sprintf("overflow(20..%d missed %d) %d-300", first-1, first-21, first))
	})
}
