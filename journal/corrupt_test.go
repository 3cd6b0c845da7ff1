package journal

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// hundredRecords makes a journal of 100 records of 1 KiB in segments of seven, of which the consumer
// has acknowledged ten.
func hundredRecords(t testing.TB) (dir string, o Options) {
	t.Helper()
	dir = t.TempDir()
	o = Options{MaxBytes: 150_000, Namespace: "monitoring", Consumers: consumers("a")}
	j := openDir(t, dir, o)
	c := mustConsumer(t, j, "a")
	for v := uint64(1); v <= 100; v++ {
		mustAppend(t, j, record(v, smallRecord))
	}
	mustAck(t, c, read(t, c, 10)[9].Offset)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, o
}

// frameHead is the number of bytes of a frame before its payload.
const frameHead = 36

// segmentWith returns the path of the segment that holds a record, and where its frame starts.
func segmentWith(t testing.TB, dir string, v uint64) (path string, start int64) {
	t.Helper()
	d, err := storage.OpenDir(dir)
	must(t, err)
	defer d.Close()
	recovered, err := storage.Recover(d, slog.New(slog.DiscardHandler))
	must(t, err)
	defer recovered.Writer.Close()
	reader := storage.NewReader(d)
	defer reader.Reset()
	for {
		f, err := reader.Peek(recovered.Log, recovered.Log.First().Base)
		must(t, err)
		var r event.Record
		must(t, r.UnmarshalBinary(f.Payload))
		if r.Position.Version == v {
			return filepath.Join(dir, reader.Segment().Name()), int64(reader.Location().Start)
		}
		reader.Advance()
	}
}

// overwrite puts bytes into a file.
func overwrite(t testing.TB, path string, at int64, b ...byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit of a file.
func flip(t testing.TB, path string, at int64, bit int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, at, b[at]^1<<bit)
}

// writeCursor writes a cursor file.
func writeCursor(t *testing.T, dir, consumer string, offset uint64) {
	t.Helper()
	d, err := storage.OpenDir(dir)
	must(t, err)
	defer d.Close()
	file, _, _ := storage.OpenCursor(d, consumer)
	defer file.Close()
	must(t, file.Write(storage.Cursor{Offset: offset}))
}
