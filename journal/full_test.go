package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/wait"
)

// smallBound makes a journal full after some tens of records of smallRecord.
const (
	smallBound  = 64 << 10
	smallRecord = 1 << 10
)

func TestAFullJournalBlocksUntilTheSlowestAcknowledges(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("slow", "fast")})
		slow, fast := mustConsumer(t, j, "slow"), mustConsumer(t, j, "fast")

		appended := make(chan uint64, 1000)
		ctx := withPatience(t)
		go func() {
			defer close(appended)
			for v := uint64(1); v <= 300; v++ {
				if err := j.Append(ctx, []event.Record{record(v, smallRecord)}); err != nil {
					t.Errorf("append %d: %v", v, err)
					return
				}
				appended <- v
			}
		}()
		wait.Until(t, "blocked", func() bool { return !j.Stats().BlockedSince.IsZero() })
		gotFast := readAll(t, fast)
		ackAll(t, fast, gotFast)
		wait.Until(t, "blocked by slow alone", func() bool { return j.Stats().BlockedReason == "full because of slow" })
		if n := len(appended); n < 30 || n > 60 {
			t.Errorf("%d records of 1 KiB were appended below a bound of 64 KiB", n)
		}
		if s := j.Stats(); s.Bytes > s.MaxBytes {
			t.Errorf("%d bytes kept, bound is %d", s.Bytes, s.MaxBytes)
		}

		var got []Entry
		for len(got) < 300 {
			entries := read(t, slow, 1)
			got = append(got, entries...)
			ackAll(t, slow, entries)
			entries = readAll(t, fast)
			gotFast = append(gotFast, entries...)
			ackAll(t, fast, entries)
			if s := j.Stats(); s.Bytes > s.MaxBytes {
				t.Fatalf("%d bytes kept, bound is %d", s.Bytes, s.MaxBytes)
			}
		}
		wantStory(t, got, "1-300")
		wantStory(t, gotFast, "1-300")
		for range appended {
		}
		s := j.Stats()
		if !s.BlockedSince.IsZero() || s.Blocked <= 0 {
			t.Errorf("after everything was read: %+v", s)
		}
	})
}

func TestAConsumerThatHangsHoldsBackNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("hung", "well")})
		hung, well := mustConsumer(t, j, "hung"), mustConsumer(t, j, "well")
		for v := uint64(1); v <= 1000; v += 10 {
			mustAppend(t, j, records(v, v+9, 100)...)
			if v == 1 {
				read(t, hung, 1) // and nothing after that
			}
			ackAll(t, well, read(t, well, 10))
		}
		s := j.Stats()
		if s.Consumers["well"].Behind != 0 || s.Consumers["hung"].Behind != 1000 || s.Records != 1000 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestAppendThatBlocksEndsWithItsContext(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		var last uint64
		for v := uint64(1); ; v++ {
			ctx, cancel := context.WithCancel(context.Background())
			stop := context.AfterFunc(withPatience(t), cancel)
			done := make(chan error, 1)
			go func() { done <- j.Append(ctx, []event.Record{record(v, smallRecord)}) }()
			var err error
			select {
			case err = <-done:
			case <-waitBlocked(j, done):
				cancel()
				err = <-done
			}
			stop()
			cancel()
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("append ended with %v", err)
				}
				last = v - 1
				break
			}
		}
		if got := j.Tail("").Version; got != last {
			t.Errorf("tail is %d, but %d was refused", got, last+1)
		}
		entries := readAll(t, c)
		wantStory(t, entries, fmt.Sprintf("1-%d", last))
		ackAll(t, c, entries)
		mustAppend(t, j, record(last+1, smallRecord))
		wantStory(t, read(t, c, 1), fmt.Sprint(last+1))
	})
}

// waitBlocked returns a channel that is closed when the journal is blocked, or
// something was done.
func waitBlocked(j *Journal, done <-chan error) <-chan struct{} {
	blocked := make(chan struct{})
	go func() {
		for j.Stats().BlockedSince.IsZero() && len(done) == 0 {
			time.Sleep(time.Millisecond)
		}
		if len(done) == 0 {
			close(blocked)
		}
	}()
	return blocked
}

func TestARecordLargerThanTheBoundPassesAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, record(1, 10))
		done := make(chan error, 1)
		go func() { done <- j.Append(withPatience(t), []event.Record{record(2, 4*smallBound)}) }()
		<-waitBlocked(j, done)
		ackAll(t, c, read(t, c, 1))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		go func() { done <- j.Append(withPatience(t), []event.Record{record(3, 10)}) }()
		<-waitBlocked(j, done)
		entries := read(t, c, 1)
		wantStory(t, entries, "2")
		ackAll(t, c, entries)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantStory(t, read(t, c, 1), "3")
	})
}

func TestDropOldest(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		var log logBuffer
		var mu sync.Mutex
		dropped := map[string]int{}
		j := open(Options{
			MaxBytes: smallBound, Namespace: "monitoring", Logger: log.logger(),
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
			t.Errorf("%d bytes kept, bound is %d", s.Bytes, s.MaxBytes)
		}
		mustAck(t, lazy, inFlight[4].Offset) // its space is gone, but it arrived
		entries := readAll(t, lazy)
		gap := entries[0].Record
		first := version(entries[1])
		wantStory(t, entries, fmt.Sprintf("overflow(5..%d missed %d) %d-300", first-1, first-6, first))
		if gap.OnlySink != "lazy" || gap.Event.Namespace != "monitoring" || gap.Position.Version != first-1 {
			t.Errorf("gap record: %+v", gap)
		}
		if first < 200 {
			t.Errorf("the oldest record kept is %d; most must have been dropped", first)
		}
		mu.Lock()
		if want := int(first - 6); dropped["lazy overflow"] != want || len(dropped) != 1 {
			t.Errorf("counted as dropped: %v, want %d for lazy", dropped, want)
		}
		mu.Unlock()
		ackAll(t, lazy, entries)
		if got := j.Stats().Consumers["lazy"].Behind; got != 0 {
			t.Errorf("behind by %d after everything was acknowledged", got)
		}
		if log.count("dropping the oldest records") != 1 || log.count("sink has caught up") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestDroppedAreNamedBySource(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		lazy := mustConsumer(t, j, "lazy")
		for v := uint64(1); v <= 300; v++ {
			r := record(v, smallRecord)
			r.Source = []string{"loki", "tempo", "tempo"}[v%3]
			other := record(1000+v, 10)
			other.OnlySink = "somebody else"
			mustAppend(t, j, r, other)
		}
		entries, err := nextEntries(withPatience(t), lazy, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 2 || entries[0].Record.Source != "loki" || entries[1].Record.Source != "tempo" {
			t.Fatalf("got %s, want a gap record for each source at once", story(entries))
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

func TestDroppingSparesWhoeverWouldNotMakeRoom(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}, {Name: "keen"}}})
		lazy, keen := mustConsumer(t, j, "lazy"), mustConsumer(t, j, "keen")
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(withPatience(t))
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
		wantStory(t, readAll(t, lazy), fmt.Sprintf("1-%d", last))
		wantStory(t, readAll(t, keen), fmt.Sprintf("1-%d", last))
	})
}

func TestDroppedWhileInFlight(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		mustAppend(t, j, records(1, 20, smallRecord)...)
		mustAppend(t, j, records(21, 25, smallRecord)...)
		mustAppend(t, j, records(26, 40, smallRecord)...)
		read(t, mustConsumer(t, j, "lazy"), 40)
		mustAppend(t, j, records(41, 55, smallRecord)...)
		// What was in flight comes again, but for what has been dropped since.
		wantStory(t, readAll(t, mustConsumer(t, j, "lazy")), "overflow(..20 missed 0) 21-55")
	})
}

func TestDroppedTwiceBeforeItIsToldIsOneGap(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: []ConsumerOptions{{Name: "lazy", WhenFull: DropOldest}}})
		for v := uint64(1); v <= 500; v++ {
			mustAppend(t, j, record(v, smallRecord))
		}
		lazy := mustConsumer(t, j, "lazy")
		entries := readAll(t, lazy)
		first := version(entries[1])
		want := fmt.Sprintf("overflow(..%d missed %d) %d-500", first-1, first-1, first)
		wantStory(t, entries, want)
		// Not acknowledged: told again, in the same words.
		again := readAll(t, mustConsumer(t, j, "lazy"))
		wantStory(t, again, want)
		if a, b := entries[0].Record.Event.String(), again[0].Record.Event.String(); a != b {
			t.Errorf("the gap record changed from\n%s\nto\n%s", a, b)
		}
	})
}

func TestThatTheJournalIsFullIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		j, err := NewMemory(Options{MaxBytes: smallBound, Consumers: consumers("a"), Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		go func() {
			for v := uint64(1); v <= 100; v++ {
				mustAppend(t, j, record(v, smallRecord))
			}
		}()
		time.Sleep(10 * time.Second)
		s := j.Stats()
		if s.Blocked < 9*time.Second || s.BlockedSince.IsZero() {
			t.Errorf("stats: %+v", s)
		}
		c := mustConsumer(t, j, "a")
		for got := 0; got < 100; {
			entries := read(t, c, 1)
			got += len(entries)
			ackAll(t, c, entries)
		}
		if log.count("journal is blocked") != 1 || log.count("journal accepts records again") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}
