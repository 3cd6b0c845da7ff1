package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/wait"
)

// onBoth runs a test on a journal in memory and on one in a directory.
func onBoth(t *testing.T, test func(t *testing.T, open func(Options) *Journal)) {
	closing := func(t *testing.T, j *Journal, err error) *Journal {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		return j
	}
	t.Run("memory", func(t *testing.T) {
		test(t, func(o Options) *Journal {
			j, err := NewMemory(o)
			return closing(t, j, err)
		})
	})
	t.Run("disk", func(t *testing.T) {
		test(t, func(o Options) *Journal {
			j, err := Open(t.TempDir(), o)
			return closing(t, j, err)
		})
	})
}

func TestEveryConsumerReadsEverythingInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a", "b")})
		a, b := mustConsumer(t, j, "a"), mustConsumer(t, j, "b")
		mustAppend(t, j, records(1, 3, 10)...)
		mustAppend(t, j, records(4, 4, 10)...)
		first := read(t, a, 2)
		mustAppend(t, j, records(5, 300, 10)...)
		wantStory(t, append(first, read(t, a, 298)...), "1-300")
		entries := read(t, b, 300)
		wantStory(t, entries, "1-300")
		for i, e := range entries {
			if e.Offset != entries[0].Offset+uint64(i) {
				t.Fatalf("entry %d has offset %d, the first has %d", i, e.Offset, entries[0].Offset)
			}
		}
		want := record(7, 10)
		if got := entries[6].Record; got.Event.String() != want.Event.String() || !got.Time.Equal(want.Time) ||
			got.Position != want.Position || got.Decisions != want.Decisions {
			t.Errorf("record came back as %+v, was %+v", got, want)
		}
	})
}

func TestNextReturnsNoMoreThanAsked(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		mustAppend(t, j, records(1, 10, 10)...)
		entries, err := nextEntries(withPatience(t), mustConsumer(t, j, "a"), 4)
		if err != nil {
			t.Fatal(err)
		}
		wantStory(t, entries, "1-4")
	})
}

func TestNextWaitsForARecord(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		got := make(chan []Entry, 1)
		go func() {
			entries, _ := nextEntries(withPatience(t), c, 10)
			got <- entries
		}()
		mustAppend(t, j, record(1, 10))
		wantStory(t, <-got, "1")
	})
}

func TestNextEndsWithItsContextAfterWhatThereIs(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, record(1, 10))
		entries, err := nextEntries(expired(), c, 10)
		if err != nil {
			t.Fatalf("with a record there: %v", err)
		}
		wantStory(t, entries, "1")
		if _, err := nextEntries(expired(), c, 10); !errors.Is(err, context.Canceled) {
			t.Errorf("without a record: %v, want %v", err, context.Canceled)
		}
	})
}

func TestWhatWasNotAcknowledgedComesAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, records(1, 10, 10)...)
		entries := read(t, c, 8)
		mustAck(t, c, entries[4].Offset)
		wantStory(t, read(t, mustConsumer(t, j, "a"), 5), "6-10")
	})
}

func TestAcknowledging(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, records(1, 10, 10)...)
		entries := read(t, c, 5)
		if err := c.Ack(entries[4].Offset + 1); err == nil {
			t.Error("what was not read could be acknowledged")
		}
		mustAck(t, c, entries[3].Offset)
		mustAck(t, c, entries[1].Offset) // late, and without effect
		if got := j.Stats().Consumers["a"].Behind; got != 6 {
			t.Errorf("behind by %d records, want 6", got)
		}
		if got := j.Positions("a")[""].Version; got != 4 {
			t.Errorf("cursor stands for version %d, want 4", got)
		}
	})
}

func TestTailIsThePositionOfTheLastRecordOfASource(t *testing.T) {
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

func TestPositionsAloneAreNoEntriesButMoveTheCursor(t *testing.T) {
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
		go nextEntries(withPatience(t), c, 1) // as a delivery does when it has nothing to do
		wait.Until(t, "the cursor stands for the last positions", func() bool {
			p := j.Positions("a")
			return p[""].Version == 8 && p["other"].Version == 5
		})
		if behind := j.Stats().Consumers["a"].Behind; behind != 0 {
			t.Errorf("behind by %d records", behind)
		}
	})
}

func TestPositionsAloneTakeNoSpaceOneByOne(t *testing.T) {
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

func TestRecordsAddressedToOneConsumer(t *testing.T) {
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
			t.Errorf("tail is %d, want 10: what is for b alone does not move it", got)
		}
		got := read(t, a, 1)
		ackAll(t, a, got)
		wantStory(t, append(got, readAll(t, a)...), "10")
		got = read(t, b, 3)
		wantStory(t, got, "10 2-3")
		ackAll(t, b, got)
		readAll(t, b)
		if a, b := j.Positions("a")[""].Version, j.Positions("b")[""].Version; a != 10 || b != 9 {
			t.Errorf("cursors stand for %d and %d, want 10 and 9", a, b)
		}
		s := j.Stats()
		if s.Consumers["a"].Behind != 0 || s.Consumers["b"].Behind != 0 {
			t.Errorf("after everything was acknowledged: %+v", s.Consumers)
		}
	})
}

func TestConsumersAddedAndRemovedWhileOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		dropped, log := map[string]int{}, &logBuffer{}
		j := open(Options{
			Consumers: consumers("kept", "removed", "idle"), Logger: log.logger(),
			OnDrop: func(consumer string, cause event.Cause, n int) { dropped[consumer+" "+string(cause)] += n },
		})
		kept, removed := mustConsumer(t, j, "kept"), mustConsumer(t, j, "removed")
		mustAppend(t, j, records(1, 3, 10)...)
		ackAll(t, kept, read(t, kept, 2))
		mustAck(t, removed, read(t, removed, 3)[0].Offset)
		ackAll(t, mustConsumer(t, j, "idle"), read(t, mustConsumer(t, j, "idle"), 3))

		waiting := make(chan error, 1)
		go func() {
			_, err := nextEntries(withPatience(t), removed, 1)
			waiting <- err
		}()
		err := j.SetConsumers([]ConsumerOptions{{Name: "kept"}, {Name: "new"}, {Name: "oldest", Start: StartOldest}})
		if err != nil {
			t.Fatal(err)
		}
		// What it had not accepted is lost, and that is no secret.
		if len(dropped) != 1 || dropped["removed removed"] != 2 {
			t.Errorf("counted as dropped: %v, want 2 records of removed", dropped)
		}
		if n := log.count("level=WARN msg=\"sink removed before it accepted all records; the rest is dropped\" sink=removed records=2"); n != 1 || log.count("level=WARN") != 1 {
			t.Errorf("want one warning, with the count, in\n%s", log)
		}
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("who was removed got %v, want %v", err, ErrClosed)
		}
		if err := removed.Ack(1); !errors.Is(err, ErrClosed) {
			t.Errorf("acknowledgement of who was removed: %v, want %v", err, ErrClosed)
		}
		if _, err := j.Consumer("removed"); err == nil {
			t.Error("a removed consumer can still be had")
		}
		mustAppend(t, j, record(4, 10))
		wantStory(t, read(t, mustConsumer(t, j, "kept"), 2), "3-4")
		wantStory(t, read(t, mustConsumer(t, j, "new"), 1), "4")
		wantStory(t, read(t, mustConsumer(t, j, "oldest"), 4), "1-4")

		// Under its old name again, it is a new one.
		if err := j.SetConsumers(consumers("kept", "removed")); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, j, record(5, 10))
		wantStory(t, read(t, mustConsumer(t, j, "removed"), 1), "5")
	})
}

func TestAConsumerThatIsRemovedHoldsNoSpace(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("gone", "well")})
		well := mustConsumer(t, j, "well")
		ctx := withPatience(t)
		done := make(chan error, 1)
		go func() {
			var err error
			for v := uint64(1); v <= 200 && err == nil; v++ {
				err = j.Append(ctx, []event.Record{record(v, smallRecord)})
			}
			done <- err
		}()
		<-waitBlocked(j, done)
		if err := j.SetConsumers(consumers("well")); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 200; {
			entries := read(t, well, 1)
			got += len(entries)
			ackAll(t, well, entries)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAChangedWhenFullCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("a")})
		done := make(chan error, 1)
		go func() {
			var err error
			for v := uint64(1); v <= 200 && err == nil; v++ {
				err = j.Append(withPatience(t), []event.Record{record(v, smallRecord)})
			}
			done <- err
		}()
		<-waitBlocked(j, done)
		if err := j.SetConsumers([]ConsumerOptions{{Name: "a", WhenFull: DropOldest}}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestConsumersThatAreRefused(t *testing.T) {
	for name, bad := range map[string][]ConsumerOptions{
		"no name":           {{}},
		"twice the same":    consumers("a", "a"),
		"unknown when_full": {{Name: "a", WhenFull: "panic"}},
		"unknown start":     {{Name: "a", Start: "middle"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewMemory(Options{Consumers: bad}); err == nil {
				t.Error("was accepted")
			}
		})
	}
}

func TestWithoutConsumersNothingIsKept(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound})
		for v := uint64(1); v <= 200; v++ {
			mustAppend(t, j, record(v, smallRecord))
		}
		if got := j.Tail("").Version; got != 200 {
			t.Errorf("tail is %d, want 200", got)
		}
	})
}

func TestClose(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallBound, Consumers: consumers("a", "idle")})
		idle := mustConsumer(t, j, "idle")
		waiting := make(chan error, 1)
		go func() {
			for {
				if _, err := nextEntries(withPatience(t), idle, 100); err != nil {
					waiting <- err
					return
				}
			}
		}()
		blocked := make(chan error, 1)
		go func() {
			var err error
			for v := uint64(1); err == nil; v++ {
				err = j.Append(withPatience(t), []event.Record{record(v, smallRecord)})
			}
			blocked <- err
		}()
		<-waitBlocked(j, blocked)
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := j.Close(); err != nil {
			t.Errorf("close again: %v", err)
		}
		for what, err := range map[string]error{
			"append that was blocked": <-blocked,
			"next that waited":        <-waiting,
			"append after close":      j.Append(withPatience(t), records(1, 1, 1)),
			"acknowledge after close": idle.Ack(1),
			"set consumers":           j.SetConsumers(nil),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v, want %v", what, err, ErrClosed)
			}
		}
	})
}

func TestManyAppendersAndConsumers(t *testing.T) {
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		const appenders, each = 8, 200
		names := []string{"a", "b", "c"}
		j := open(Options{MaxBytes: smallBound, Consumers: consumers(names...)})
		ctx := withPatience(t)
		var wg sync.WaitGroup
		for i := range appenders {
			wg.Go(func() {
				for v := uint64(1); v <= each; v++ {
					r := record(v, 100)
					r.Source = fmt.Sprint(i)
					if err := j.Append(ctx, []event.Record{r, positionOnly(r.Source, v)}); err != nil {
						t.Errorf("append: %v", err)
						return
					}
				}
			})
		}
		for _, name := range names {
			c := mustConsumer(t, j, name)
			wg.Go(func() {
				last := map[string]uint64{}
				for n := 0; n < appenders*each; {
					entries, err := nextEntries(ctx, c, 17)
					if err != nil {
						t.Errorf("next: %v", err)
						return
					}
					for _, e := range entries {
						if v := version(e); v != last[e.Record.Source]+1 {
							t.Errorf("%d of source %s after %d", v, e.Record.Source, last[e.Record.Source])
						}
						last[e.Record.Source] = version(e)
					}
					n += len(entries)
					if err := c.Ack(entries[len(entries)-1].Offset); err != nil {
						t.Errorf("acknowledge: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if s := j.Stats(); s.Records != 0 {
			wait.Until(t, "nothing is kept", func() bool { return j.Stats().Records == 0 })
		}
	})
}

func TestLagIsSinceTheOldestRecordBehindWasAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := NewMemory(Options{Consumers: consumers("a")})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		c := mustConsumer(t, j, "a")
		want := func(what string, behind uint64, lag time.Duration) {
			t.Helper()
			if got := j.Stats().Consumers["a"]; got.Behind != behind || got.Lag != lag {
				t.Errorf("%s: behind by %d and %v, want %d and %v", what, got.Behind, got.Lag, behind, lag)
			}
		}
		want("empty", 0, 0)
		mustAppend(t, j, record(1, 10))
		time.Sleep(time.Minute)
		want("not read", 1, time.Minute)
		mustAppend(t, j, record(2, 10))
		first := read(t, c, 1)
		time.Sleep(time.Minute)
		want("one read", 2, 2*time.Minute)
		ackAll(t, c, first)
		want("one acknowledged", 1, time.Minute)
		ackAll(t, c, read(t, c, 1))
		want("all acknowledged", 0, 0)
	})
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	j, err := NewMemory(Options{Consumers: consumers("a", "b"), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, records(1, 3, 10)...)
	a := mustConsumer(t, j, "a")
	ackAll(t, a, read(t, a, 2))
	want := `
# HELP hindsight_journal_records Records kept in the journal for some sink.
# TYPE hindsight_journal_records gauge
hindsight_journal_records 3
# HELP hindsight_sink_behind_records Records in the journal that the sink has not accepted yet.
# TYPE hindsight_sink_behind_records gauge
hindsight_sink_behind_records{sink="a"} 1
hindsight_sink_behind_records{sink="b"} 3
`
	err = testutil.GatherAndCompare(reg, strings.NewReader(want), "hindsight_journal_records", "hindsight_sink_behind_records")
	if err != nil {
		t.Error(err)
	}
	names := []string{
		"hindsight_journal_bytes", "hindsight_journal_blocked_seconds_total", "hindsight_journal_truncated_bytes_total", "hindsight_sink_lag_seconds",
	}
	for _, name := range names {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n == 0 {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
	j.Close()
	if n, _ := testutil.GatherAndCount(reg); n != 0 {
		t.Errorf("%d metrics are left after Close", n)
	}
}
