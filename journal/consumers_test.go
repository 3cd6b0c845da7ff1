package journal

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

func TestSetConsumers(t *testing.T) {
	t.Parallel()
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
			_, err := nextEntries(testContext(t), removed, 1)
			waiting <- err
		}()
		err := j.SetConsumers([]ConsumerOptions{{Name: "kept"}, {Name: "new"}, {Name: "oldest", Start: StartOldest}})
		if err != nil {
			t.Fatal(err)
		}
		if len(dropped) != 1 || dropped["removed removed"] != 2 {
			t.Errorf("counted as dropped: %v, want 2 records of removed", dropped)
		}
		if n := log.count("level=WARN msg=\"sink removed before it accepted all records; the rest is dropped\" sink=removed records=2"); n != 1 || log.count("level=WARN") != 1 {
			t.Errorf("want one warning with the count in\n%s", log)
		}
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("Next of the removed consumer: %v, want %v", err, ErrClosed)
		}
		if err := removed.Ack(1); !errors.Is(err, ErrClosed) {
			t.Errorf("Ack of the removed consumer: %v, want %v", err, ErrClosed)
		}
		if _, err := j.Consumer("removed"); err == nil {
			t.Error("the removed consumer still exists")
		}
		mustAppend(t, j, record(4, 10))
		wantEntries(t, read(t, mustConsumer(t, j, "kept"), 2), "3-4")
		wantEntries(t, read(t, mustConsumer(t, j, "new"), 1), "4")
		wantEntries(t, read(t, mustConsumer(t, j, "oldest"), 4), "1-4")

		// A consumer of the same name is a new one.
		if err := j.SetConsumers(consumers("kept", "removed")); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, j, record(5, 10))
		wantEntries(t, read(t, mustConsumer(t, j, "removed"), 1), "5")
	})
}

// A consumer that starts at the oldest record has the positions of sources whose records were
// deleted before: resumed from there, they are not read again.
func TestOldestStartHasPositionsOfDeletedRecords(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		a := mustConsumer(t, j, "a")
		for v := uint64(1); v <= 200; v++ {
			r := record(v, smallRecord)
			if v == 1 {
				r.Source = "tempo"
			}
			mustAppend(t, j, r)
			ackAll(t, a, read(t, a, 1))
		}
		if err := j.SetConsumers([]ConsumerOptions{{Name: "a"}, {Name: "oldest", Start: StartOldest}}); err != nil {
			t.Fatal(err)
		}
		if p := j.Positions("oldest")["tempo"]; p.Version != 1 {
			t.Errorf("position of the deleted record's source is %v, want 1", p)
		}
	})
}

func TestRemovedConsumerFreesSpace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("gone", "well")})
		well := mustConsumer(t, j, "well")
		ctx := testContext(t)
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

func TestChangeOfWhenFull(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		done := make(chan error, 1)
		go func() {
			var err error
			for v := uint64(1); v <= 200 && err == nil; v++ {
				err = j.Append(testContext(t), []event.Record{record(v, smallRecord)})
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

func TestInvalidConsumers(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string][]ConsumerOptions{
		"no name":           {{}},
		"duplicate name":    consumers("a", "a"),
		"unknown when_full": {{Name: "a", WhenFull: "panic"}},
		"unknown start":     {{Name: "a", Start: "middle"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewMemory(Options{Consumers: bad}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestNoConsumers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(Options) *Journal) {
		j := open(Options{MaxBytes: smallCapacity})
		for v := uint64(1); v <= 200; v++ {
			mustAppend(t, j, record(v, smallRecord))
		}
		if got := j.Tail("").Version; got != 200 {
			t.Errorf("tail is %d, want 200", got)
		}
	})
}

func TestConsumersAfterRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openDir(t, dir, Options{Consumers: consumers("kept", "removed/with ünusual name")})
	kept := mustConsumer(t, j, "kept")
	mustAppend(t, j, records(1, 3, 10)...)
	ackAll(t, kept, read(t, kept, 1))
	j.Close()

	dropped, log := map[string]int{}, &logBuffer{}
	j = openDir(t, dir, Options{
		Consumers: []ConsumerOptions{{Name: "kept"}, {Name: "new"}, {Name: "oldest", Start: StartOldest}},
		Logger:    log.logger(),
		OnDrop:    func(consumer string, cause event.Cause, n int) { dropped[consumer+" "+string(cause)] += n },
	})
	if len(dropped) != 1 || dropped["removed/with ünusual name removed"] != 3 {
		t.Errorf("counted as dropped: %v, want the 3 records of the removed consumer", dropped)
	}
	if n := log.count("sink removed before it accepted all records"); n != 1 {
		t.Errorf("%d warnings about dropped records, want 1", n)
	}
	wantEntries(t, readAll(t, mustConsumer(t, j, "kept")), "2-3")
	wantEntries(t, readAll(t, mustConsumer(t, j, "new")), "")
	wantEntries(t, readAll(t, mustConsumer(t, j, "oldest")), "1-3")
	if got := j.Positions("new")[""].Version; got != 3 {
		t.Errorf("the new consumer is at %d, want the tail, 3", got)
	}
	var cursors []string
	for _, name := range files(t, dir) {
		if strings.HasSuffix(name, ".cursor") {
			cursors = append(cursors, name)
		}
	}
	if want := []string{"kept.cursor", "new.cursor", "oldest.cursor"}; !slices.Equal(cursors, want) {
		t.Errorf("cursors: %v, want %v", cursors, want)
	}
}
