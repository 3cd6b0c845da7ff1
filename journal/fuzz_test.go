package journal

import (
	"testing"

	"github.com/hindsight-events/hindsight/journal/storage"
)

// FuzzCursor opens a journal with any cursor: records come in order, and the last one always.
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
			t.Fatalf("record appended afterwards is not read: %s", story(entries))
		}
	})
}
