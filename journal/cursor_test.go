package journal

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/journal/storage"
)

func TestCursorCannotBeSaved(t *testing.T) {
	t.Parallel()
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
				j := mustOpen(t, disk, Options{MaxBytes: smallCapacity, Consumers: consumers("a"), Logger: log.logger()})
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
					t.Errorf("%d records are needed while the cursor is not saved, want 20", kept)
				}
				setting(false)
				time.Sleep(time.Minute)
				if kept := j.Stats().Records; kept != 0 {
					t.Errorf("%d records are needed after the cursor was saved", kept)
				}
				if log.count("cannot save the cursor") != 1 || log.count("saved again") != 1 {
					t.Errorf("log:\n%s", log.String())
				}
				after := disk.losePower(rand.New(rand.NewPCG(1, 1)))
				j.Close()
				j = mustOpen(t, after, Options{Consumers: consumers("a")})
				defer j.Close()
				wantEntries(t, readAll(t, mustConsumer(t, j, "a")), "")
			})
		})
	}
}

// A journal with any cursor delivers records in order, and the last one always.
func FuzzCursor(f *testing.F) {
	const n = 60 // records, in several segments
	o := Options{MaxBytes: 100_000, Consumers: consumers("a")}
	f.Add(uint64(7), uint64(0))
	f.Add(uint64(7), uint64(50))
	f.Add(uint64(n+1), uint64(n+1))
	f.Add(uint64(1<<64-1), uint64(1<<64-1))
	f.Fuzz(func(t *testing.T, offset, droppedUntil uint64) {
		fs := storage.NewMemory()
		j := mustOpen(t, fs, o)
		for v := uint64(1); v <= n; v++ {
			mustAppend(t, j, record(v, 500))
		}
		j.Close()
		file, _, _ := storage.OpenCursor(fs, "a")
		must(t, file.Write(storage.Cursor{Offset: offset, Dropped: &storage.DroppedRange{Until: droppedUntil}}))
		file.Close()

		j = mustOpen(t, fs, o)
		defer j.Close()
		last := uint64(0)
		for _, e := range readAll(t, mustConsumer(t, j, "a")) {
			if v := version(e); !e.Record.Gap {
				if v <= last || v > n {
					t.Fatalf("record %d after %d", v, last)
				}
				last = v
			}
		}
		mustAppend(t, j, record(n+1, 1))
		entries := readAll(t, mustConsumer(t, j, "a"))
		if len(entries) == 0 || version(entries[len(entries)-1]) != n+1 {
			t.Fatalf("record appended afterwards is not read: %s", summary(entries))
		}
	})
}
