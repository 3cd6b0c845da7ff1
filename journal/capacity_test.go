package journal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/wait"
)

func TestFullJournalBlocks(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("slow", "fast")})
		slow, fast := mustConsumer(t, j, "slow"), mustConsumer(t, j, "fast")

		appended := make(chan uint64, 1000)
		ctx := testContext(t)
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
			t.Errorf("%d records of 1 KiB were appended, capacity is 64 KiB", n)
		}
		if s := j.Stats(); s.Bytes > s.MaxBytes {
			t.Errorf("%d bytes used, capacity is %d", s.Bytes, s.MaxBytes)
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
				t.Fatalf("%d bytes used, capacity is %d", s.Bytes, s.MaxBytes)
			}
		}
		wantEntries(t, got, "1-300")
		wantEntries(t, gotFast, "1-300")
		for range appended {
		}
		s := j.Stats()
		if !s.BlockedSince.IsZero() || s.Blocked <= 0 {
			t.Errorf("stats after the backlog was read: %+v", s)
		}
	})
}

func TestBlockedAppendIsCancelled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		var last uint64
		for v := uint64(1); ; v++ {
			ctx, cancel := context.WithCancel(context.Background())
			stop := context.AfterFunc(testContext(t), cancel)
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
					t.Errorf("append returned %v", err)
				}
				last = v - 1
				break
			}
		}
		if got := j.Tail("").Version; got != last {
			t.Errorf("tail is %d, but appending %d was cancelled", got, last+1)
		}
		entries := readAll(t, c)
		wantEntries(t, entries, fmt.Sprintf("1-%d", last))
		ackAll(t, c, entries)
		mustAppend(t, j, record(last+1, smallRecord))
		wantEntries(t, read(t, c, 1), fmt.Sprint(last+1))
	})
}

// waitBlocked returns a channel that is closed once the journal is blocked, unless done is ready.
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

func TestRecordLargerThanTheJournal(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		c := mustConsumer(t, j, "a")
		mustAppend(t, j, record(1, 10))
		done := make(chan error, 1)
		go func() { done <- j.Append(testContext(t), []event.Record{record(2, 4*smallCapacity)}) }()
		<-waitBlocked(j, done)
		ackAll(t, c, read(t, c, 1))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		go func() { done <- j.Append(testContext(t), []event.Record{record(3, 10)}) }()
		<-waitBlocked(j, done)
		entries := read(t, c, 1)
		wantEntries(t, entries, "2")
		ackAll(t, c, entries)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantEntries(t, read(t, c, 1), "3")
	})
}

func TestFullJournalIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		j, err := NewMemory(Options{MaxBytes: smallCapacity, Consumers: consumers("a"), Logger: log.logger()})
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

func TestAcknowledgedSegmentsAreDeleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openDir(t, dir, Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
	c := mustConsumer(t, j, "a")
	for v := uint64(1); v <= 200; v++ {
		mustAppend(t, j, record(v, smallRecord))
		ackAll(t, c, read(t, c, 1))
	}
	wait.Until(t, "one segment is left", func() bool { return len(segmentFiles(t, dir)) == 1 })
}
