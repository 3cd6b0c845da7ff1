package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/test/nightly"
)

// Power is lost, or the process killed, at random moments. Appended records are
// delivered, in order; records delivered again are those since the last sync of the cursors.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	lives := nightly.Size(60, 400)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { crashOften(t, seed, lives) })
		})
	}
}

func crashOften(t *testing.T, seed uint64, lives int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	disk := newSimDisk()
	next := uint64(1)                // version to append
	got := map[string]uint64{}       // newest version read by a consumer
	undecided := map[uint64]uint64{} // versions of appends that did not return
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
			t.Fatalf("tail is %d, but %d was appended", tail, next-1)
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
				entries, _ := nextEntries(cancelled(), c, 1+rng.IntN(20))
				for _, e := range entries {
					v := version(e)
					if e.Record.Gap || v > got[name]+1 {
						t.Fatalf("%s got %s after %d", name, summary(entries), got[name])
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
		// Half of the crashes happen during the sync of a group.
		clear(undecided)
		if rng.IntN(2) == 0 {
			for v := next; v < next+5; v++ {
				undecided[v] = v
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second) // the journal may be full
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
				t.Fatal("append returned without a sync")
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
		t.Errorf("only %d records appended", next)
	}
}
