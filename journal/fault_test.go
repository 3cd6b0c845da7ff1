package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
	"github.com/hindsight-events/hindsight/test/nightly"
)

func mustOpen(t testing.TB, fs storage.FS, o Options) *Journal {
	t.Helper()
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	j, err := open(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestLossOfPower lets the power go at random moments, or only kills the
// process. Whatever an append that
// returned has added is delivered, in order; what comes again is at most what
// was read since cursors were last synced.
func TestLossOfPower(t *testing.T) {
	lives := nightly.Size(60, 400)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { losePowerOften(t, seed, lives) })
		})
	}
}

func losePowerOften(t *testing.T, seed uint64, lives int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	disk := newSimDisk()
	next := uint64(1)                // version to be appended
	got := map[string]uint64{}       // newest version a consumer has had
	undecided := map[uint64]uint64{} // versions whose append never returned
	names := []string{"a", "b"}
	var j *Journal
	defer func() { j.Close() }()
	crash := func() *simDisk {
		if rng.IntN(3) == 0 {
			return disk.killProcess()
		}
		return disk.losePower(rng)
	}
	for range lives {
		j = mustOpen(t, disk, Options{MaxBytes: 40_000, Consumers: consumers(names...)})
		tail := j.Tail("").Version
		if tail < next-1 && undecided[tail+1] == 0 {
			t.Fatalf("tail is %d, but %d had been appended", tail, next-1)
		}
		next = tail + 1
		read := map[string]*Consumer{}
		for _, name := range names {
			read[name] = mustConsumer(t, j, name)
		}
		for range 1 + rng.IntN(40) {
			switch rng.IntN(5) {
			case 0, 1:
				to := next + uint64(rng.IntN(5))
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				if err := j.Append(ctx, records(next, to, 200)); err == nil {
					next = to + 1
				}
				cancel()
			case 2:
				name := names[rng.IntN(len(names))]
				c := read[name]
				entries, _ := nextEntries(expired(), c, 1+rng.IntN(20))
				for _, e := range entries {
					v := version(e)
					if e.Record.Gap || v > got[name]+1 {
						t.Fatalf("%s got %s after %d", name, story(entries), got[name])
					}
					got[name] = max(got[name], v)
				}
				if len(entries) > 0 {
					mustAck(t, c, entries[rng.IntN(len(entries))].Offset)
				}
			case 3:
				time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
			case 4:
				disk.failOneSync()
			}
		}
		// One group is on its way when the power goes.
		clear(undecided)
		if rng.IntN(2) == 0 {
			for v := next; v < next+5; v++ {
				undecided[v] = v
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second) // it may be full
			var after *simDisk
			disk.mu.Lock()
			disk.failSync = func(name string) error {
				if !strings.Contains(name, ".log") {
					return nil
				}
				if after == nil {
					disk.mu.Unlock()
					after = crash()
					disk.mu.Lock()
					cancel()
				}
				return syscall.EIO
			}
			disk.mu.Unlock()
			if err := j.Append(ctx, records(next, next+4, 200)); err == nil {
				t.Fatal("append returned although the power was gone")
			}
			cancel()
			j.Close()
			if after != nil {
				disk = after
				continue
			}
		}
		after := crash()
		j.Close()
		disk = after
	}
	if next < uint64(lives) {
		t.Errorf("only %d records were appended", next)
	}
}

// failOneSync lets the next sync of anything fail.
func (d *simDisk) failOneSync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failSync = func(string) error {
		d.failSync = nil
		return syscall.EIO
	}
}

func TestAFailedSyncIsFollowedByANewSegment(t *testing.T) {
	for name, failCut := range map[string]error{"": nil, "and the file cannot be cut": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failSyncs(t, failCut) })
		})
	}
}

func failSyncs(t *testing.T, failCut error) {
	var log logBuffer
	disk := newSimDisk()
	j := mustOpen(t, disk, Options{Consumers: consumers("a"), Logger: log.logger()})
	mustAppend(t, j, records(1, 3, 10)...)
	failures := 0
	disk.mu.Lock()
	disk.failCut = failCut
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
	wantStory(t, read(t, mustConsumer(t, j, "a"), 9), "1-9")
	if failures != 3 {
		t.Fatalf("%d syncs failed, want 3", failures)
	}
	if log.count("journal is blocked") != 1 || log.count("input/output error") != 1 || log.count("journal accepts records again") != 1 {
		t.Errorf("log:\n%s", log.String())
	}
	// The machine goes down: what the failed syncs did not save must not be
	// missing, and what they did save must not be there twice.
	after := disk.losePower(rand.New(rand.NewPCG(1, 1)))
	j.Close()
	for _, disk := range []*simDisk{disk, after} {
		disk.failCut, disk.failSync = nil, nil
		j = mustOpen(t, disk, Options{Consumers: consumers("a")})
		wantStory(t, readAll(t, mustConsumer(t, j, "a")), "1-9")
		j.Close()
	}
}

func TestWhatHasAMomentToBecomeDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		mustAppend(t, j, records(1, 9, 10)...)
		c := mustConsumer(t, j, "a")
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
		wantStory(t, readAll(t, mustConsumer(t, j, "a")), "8-9")
	})
}

func TestWhatComesTogetherIsSyncedTogether(t *testing.T) {
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
		synctest.Wait() // it is being synced
		for v := range uint64(99) {
			wg.Go(func() { mustAppend(t, j, record(v+1, 10)) })
		}
		wg.Wait()
		if took := time.Since(start); syncs != 2 || took != 20*time.Millisecond {
			t.Errorf("100 appends at once cost %d syncs and %v", syncs, took)
		}
		mustAppend(t, j, record(100, 10))
		if took := time.Since(start); syncs != 3 || took != 30*time.Millisecond {
			t.Errorf("a lone append brought it to %d syncs and %v: it waits for nothing but its sync", syncs, took)
		}
	})
}

func TestAFailedWriteIsRepeated(t *testing.T) {
	for name, short := range map[string]int{"nothing written": 0, "a part written": 100} {
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
				wantStory(t, readAll(t, mustConsumer(t, j, "a")), "1-9")
				if cut := j.Stats().TruncatedBytes; cut != 0 {
					t.Errorf("%d bytes were left behind", cut)
				}
			})
		})
	}
}

func TestAnAppendThatFailedLeavesNothing(t *testing.T) {
	for name, failCut := range map[string]error{"": nil, "and the file cannot be cut": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { failAppend(t, failCut) })
		})
	}
}

func failAppend(t *testing.T, failCut error) {
	disk := newSimDisk()
	j := mustOpen(t, disk, Options{Consumers: consumers("a")})
	mustAppend(t, j, records(1, 3, 10)...)
	disk.mu.Lock()
	disk.failSync, disk.failCut = func(string) error { return syscall.EIO }, failCut
	disk.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := j.Append(ctx, records(4, 6, 10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("append: %v", err)
	}
	disk.mu.Lock()
	disk.failSync, disk.failCut = nil, nil
	disk.mu.Unlock()
	if got := j.Tail("").Version; got != 3 {
		t.Errorf("tail is %d, want 3", got)
	}
	mustAppend(t, j, records(7, 9, 10)...)
	wantStory(t, readAll(t, mustConsumer(t, j, "a")), "1-3 7-9")
	j.Close()
	j = mustOpen(t, disk, Options{Consumers: consumers("a")})
	defer j.Close()
	wantStory(t, readAll(t, mustConsumer(t, j, "a")), "1-3 7-9")
}

func TestAnAppendThatWasWrittenInPartLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		mustAppend(t, j, records(1, 3, 10)...)
		disk.mu.Lock()
		disk.failWrite = func(string) (int, error) { return 1000, syscall.EIO } // some whole records
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
		wantStory(t, readAll(t, mustConsumer(t, j, "a")), "1-3")
	})
}

// TestASegmentThatMayHaveBeenCreated lets the creation of a segment fail when
// the file is there already: what is appended afterwards must not be taken for
// something older than it.
func TestASegmentThatMayHaveBeenCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{MaxBytes: smallBound, Consumers: consumers("a")})
		mustAppend(t, j, records(1, 2, smallRecord)...)
		disk.mu.Lock()
		disk.failNames = syscall.EIO
		disk.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := j.Append(ctx, records(3, 5, smallRecord)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("append: %v", err)
		}
		disk.mu.Lock()
		disk.failNames = nil
		disk.mu.Unlock()
		mustAppend(t, j, record(6, 10)) // would have room in the segment before
		j.Close()
		j = mustOpen(t, disk, Options{MaxBytes: smallBound, Consumers: consumers("a")})
		defer j.Close()
		wantStory(t, readAll(t, mustConsumer(t, j, "a")), "1-2 6")
	})
}

func TestAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{MaxBytes: 1 << 20, Consumers: consumers("a"), Logger: log.logger()})
		defer func() { j.Close() }()
		disk.mu.Lock()
		disk.room = 100_000
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
		// Cursors can still be saved, so that reading on makes room.
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
		wantStory(t, entries, "1-300")
		if log.count("journal accepts records again") == 0 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestACursorThatCannotBeSaved(t *testing.T) {
	cases := map[string]func(d *simDisk, fail bool){
		"write fails": func(d *simDisk, fail bool) {
			d.failWrite = func(name string) (int, error) {
				if fail && strings.Contains(name, ".cursor") {
					return 0, syscall.EIO
				}
				return 0, nil
			}
		},
		"sync fails": func(d *simDisk, fail bool) {
			d.failSync = func(name string) error {
				if fail && strings.Contains(name, ".cursor") {
					return syscall.EIO
				}
				return nil
			}
		},
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				disk := newSimDisk()
				j := mustOpen(t, disk, Options{MaxBytes: smallBound, Consumers: consumers("a"), Logger: log.logger()})
				setting := func(fail bool) {
					disk.mu.Lock()
					defer disk.mu.Unlock()
					set(disk, fail)
				}
				mustAppend(t, j, records(1, 20, smallRecord)...)
				c := mustConsumer(t, j, "a")
				setting(true)
				ackAll(t, c, read(t, c, 20))
				time.Sleep(time.Minute)
				kept := j.Stats().Records
				if kept != 20 {
					t.Errorf("%d records are kept while the cursor is not saved, want 20", kept)
				}
				setting(false)
				time.Sleep(time.Minute)
				if kept := j.Stats().Records; kept != 0 {
					t.Errorf("%d records are kept after the cursor was saved", kept)
				}
				if log.count("cannot save the cursor") != 1 || log.count("saved again") != 1 {
					t.Errorf("log:\n%s", log.String())
				}
				after := disk.losePower(rand.New(rand.NewPCG(1, 1)))
				j.Close()
				j = mustOpen(t, after, Options{Consumers: consumers("a")})
				defer j.Close()
				wantStory(t, readAll(t, mustConsumer(t, j, "a")), "")
			})
		})
	}
}

func TestWhatCannotBeReadForAWhileIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a"), Logger: log.logger()})
		defer j.Close()
		mustAppend(t, j, records(1, 10, 10)...)
		failures := 0
		disk.mu.Lock()
		disk.failRead = func(string, int64) error {
			if failures++; failures < 5 {
				return syscall.EIO
			}
			return nil
		}
		disk.mu.Unlock()
		wantStory(t, read(t, mustConsumer(t, j, "a"), 10), "1-10")
		if log.count("cannot read the journal, retrying") != 1 || log.count("journal is readable again") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestABlockThatCannotBeReadIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		defer j.Close()
		mustAppend(t, j, records(1, 1000, smallRecord)...)
		disk.mu.Lock()
		disk.failRead = func(_ string, at int64) error {
			if at <= 300_000 && 300_000 < at+128<<10 {
				return syscall.EIO
			}
			return nil
		}
		disk.mu.Unlock()
		var got []Entry
		for len(got) == 0 || version(got[len(got)-1]) < 1000 {
			entries, err := mustNext(t, j, got)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, entries...)
		}
		gaps := slices.DeleteFunc(slices.Clone(got), func(e Entry) bool { return !e.Record.Gap })
		if len(gaps) == 0 {
			t.Errorf("no gap record in %s", story(got))
		}
	})
}

func mustNext(t *testing.T, j *Journal, before []Entry) ([]Entry, error) {
	j.mu.Lock()
	c := j.consumers["a"]
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	return nextEntries(ctx, c, 100)
}

func TestAPositionDoesNotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		mustAppend(t, j, positionOnly("", 2))
		mustAppend(t, j, record(3, 10))
		time.Sleep(2 * time.Second) // the position would have been written by now
		j.Close()
		j = mustOpen(t, disk, Options{Consumers: consumers("a")})
		defer j.Close()
		if got := j.Tail("").Version; got != 3 {
			t.Errorf("tail is %d, want 3", got)
		}
	})
}

func TestPositionsSurviveTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{MaxBytes: smallBound, Consumers: consumers("a")})
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
			j = mustOpen(t, disk, Options{MaxBytes: smallBound, Consumers: consumers("a")})
			got := map[string]uint64{}
			for source := range want {
				got[source] = j.Tail(source).Version
			}
			if !maps.Equal(got, want) {
				t.Errorf("tails after a restart: %v, want %v", got, want)
			}
			if p := j.Tail("loki"); p != positionAt(301) {
				t.Errorf("position came back as %+v, was %+v", p, positionAt(301))
			}
		}
		j.Close()
	})
}
