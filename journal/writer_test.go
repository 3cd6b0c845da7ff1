package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

func TestFailedSyncStartsASegment(t *testing.T) {
	t.Parallel()
	for name, failTruncate := range map[string]error{"": nil, "and truncating fails": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failSyncs(t, failTruncate) })
		})
	}
}

func failSyncs(t *testing.T, failTruncate error) {
	var log logBuffer
	disk := newSimDisk()
	j := mustOpen(t, disk, Options{Consumers: consumers("a"), Logger: log.logger()})
	mustAppend(t, j, records(1, 3, 10)...)
	failures := 0
	disk.mu.Lock()
	disk.failTruncate = failTruncate
	disk.failSync = func(name string) error {
		if strings.Contains(name, ".log") && failures < 3 {
			failures++
			return syscall.EIO
		}
		return nil
	}
	disk.mu.Unlock()
	mustAppend(t, j, records(4, 6, 10)...)
	mustAppend(t, j, records(7, 9, 10)...)
	wantEntries(t, read(t, mustConsumer(t, j, "a"), 9), "1-9")
	if failures != 3 {
		t.Fatalf("%d syncs failed, want 3", failures)
	}
	if log.count("journal is blocked") != 1 || log.count("input/output error") != 1 || log.count("journal accepts records again") != 1 {
		t.Errorf("log:\n%s", log.String())
	}
	// After a crash, frames of the failed syncs are neither missing nor duplicated.
	after := disk.losePower(rand.New(rand.NewPCG(1, 1)))
	j.Close()
	for _, disk := range []*simDisk{disk, after} {
		disk.failTruncate, disk.failSync = nil, nil
		j = mustOpen(t, disk, Options{Consumers: consumers("a")})
		wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "1-9")
		j.Close()
	}
}

func TestPositionsAndCursorsAreSyncedWithinASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		mustAppend(t, j, records(1, 9, 10)...)
		c := mustConsumer(t, j, "a")
		time.Sleep(time.Minute) // nothing is due any more
		mustAck(t, c, read(t, c, 9)[6].Offset)
		mustAppend(t, j, positionOnly("", 10))
		time.Sleep(2 * time.Second)
		after := disk.losePower(rand.New(rand.NewPCG(1, 1)))
		j.Close()
		j = mustOpen(t, after, Options{Consumers: consumers("a")})
		defer j.Close()
		if got := j.Tail("").Version; got != 10 {
			t.Errorf("tail is %d, want 10", got)
		}
		wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "8-9")
	})
}

func TestConcurrentAppendsShareASync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{})
		defer j.Close()
		syncs := 0
		disk.mu.Lock()
		disk.failSync = func(string) error {
			syncs++
			disk.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			disk.mu.Lock()
			return nil
		}
		disk.mu.Unlock()
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { mustAppend(t, j, record(0, 10)) })
		synctest.Wait() // the sync has begun
		for v := range uint64(99) {
			wg.Go(func() { mustAppend(t, j, record(v+1, 10)) })
		}
		wg.Wait()
		if took := time.Since(start); syncs != 2 || took != 20*time.Millisecond {
			t.Errorf("100 concurrent appends took %d syncs and %v", syncs, took)
		}
		mustAppend(t, j, record(100, 10))
		if took := time.Since(start); syncs != 3 || took != 30*time.Millisecond {
			t.Errorf("with one more append: %d syncs and %v, want one more sync and no wait", syncs, took)
		}
	})
}

func TestFailedWriteIsRetried(t *testing.T) {
	t.Parallel()
	for name, short := range map[string]int{"no bytes written": 0, "some bytes written": 100} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newSimDisk()
				j := mustOpen(t, disk, Options{Consumers: consumers("a")})
				mustAppend(t, j, records(1, 3, 10)...)
				failures := 0
				disk.mu.Lock()
				disk.failWrite = func(string) (int, error) {
					if failures++; failures <= 3 {
						return short, syscall.EIO
					}
					return 0, nil
				}
				disk.mu.Unlock()
				mustAppend(t, j, records(4, 6, 10)...)
				mustAppend(t, j, records(7, 9, 10)...)
				if failures < 3 {
					t.Fatalf("only %d writes failed", failures)
				}
				j.Close()
				j = mustOpen(t, disk, Options{Consumers: consumers("a")})
				defer j.Close()
				wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "1-9")
				if cut := j.Stats().TruncatedBytes; cut != 0 {
					t.Errorf("recovery truncated %d bytes", cut)
				}
			})
		})
	}
}

func TestFailedAppendLeavesNoRecords(t *testing.T) {
	t.Parallel()
	for name, failTruncate := range map[string]error{"": nil, "and truncating fails": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failAppend(t, failTruncate) })
		})
	}
}

func failAppend(t *testing.T, failTruncate error) {
	disk := newSimDisk()
	j := mustOpen(t, disk, Options{Consumers: consumers("a")})
	mustAppend(t, j, records(1, 3, 10)...)
	disk.mu.Lock()
	disk.failSync, disk.failTruncate = func(string) error { return syscall.EIO }, failTruncate
	disk.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := j.Append(ctx, records(4, 6, 10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("append: %v", err)
	}
	disk.mu.Lock()
	disk.failSync, disk.failTruncate = nil, nil
	disk.mu.Unlock()
	if got := j.Tail("").Version; got != 3 {
		t.Errorf("tail is %d, want 3", got)
	}
	mustAppend(t, j, records(7, 9, 10)...)
	wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "1-3 7-9")
	j.Close()
	j = mustOpen(t, disk, Options{Consumers: consumers("a")})
	defer j.Close()
	wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "1-3 7-9")
}

func TestPartialWriteLeavesNoRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		mustAppend(t, j, records(1, 3, 10)...)
		disk.mu.Lock()
		disk.failWrite = func(string) (int, error) { return 1000, syscall.EIO } // some complete records
		disk.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := j.Append(ctx, records(4, 20, 10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("append: %v", err)
		}
		j.Close()
		disk.failWrite = nil
		j = mustOpen(t, disk, Options{Consumers: consumers("a")})
		defer j.Close()
		wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "1-3")
	})
}

// The creation of a segment fails after the file exists: records that are appended later must not
// end up before it.
func TestUncertainSegmentCreation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		mustAppend(t, j, records(1, 2, smallRecord)...)
		disk.mu.Lock()
		disk.failDirSync = syscall.EIO
		disk.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := j.Append(ctx, records(3, 5, smallRecord)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("append: %v", err)
		}
		disk.mu.Lock()
		disk.failDirSync = nil
		disk.mu.Unlock()
		mustAppend(t, j, record(6, 10)) // would fit into the previous segment
		j.Close()
		j = mustOpen(t, disk, Options{MaxBytes: smallCapacity, Consumers: consumers("a")})
		defer j.Close()
		wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "1-2 6")
	})
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{MaxBytes: 1 << 20, Consumers: consumers("a"), Logger: log.logger()})
		defer func() { j.Close() }()
		disk.mu.Lock()
		disk.free = 100_000
		disk.mu.Unlock()
		done := make(chan error, 1)
		appending, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			var err error
			for v := uint64(1); v <= 300 && err == nil; v++ {
				err = j.Append(appending, []event.Record{record(v, smallRecord)})
			}
			done <- err
		}()
		time.Sleep(time.Hour)
		s := j.Stats()
		if s.BlockedSince.IsZero() || !strings.Contains(s.BlockedReason, "no space left on device") {
			t.Fatalf("stats: %+v", s)
		}
		if log.count("journal is blocked") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
		// Cursors can still be saved, so that acknowledgements free space.
		c := mustConsumer(t, j, "a")
		entries := readAll(t, c)
		ackAll(t, c, entries)
		time.Sleep(time.Minute)
		if log.count("cannot save the cursor") != 0 {
			t.Errorf("log:\n%s", log.String())
		}
		for len(entries) < 300 {
			got := read(t, c, 1)
			entries = append(entries, got...)
			ackAll(t, c, got)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantEntries(t, entries, "1-300")
		if log.count("journal accepts records again") == 0 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}
