package file

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// start returns a sink that ends before the directory of the test is removed.
func start(t *testing.T, c Config, d fileSystem, log io.Writer) *Sink {
	t.Helper()
	s, err := newSink(c, d, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		<-s.ended
	})
	return s
}

func in(dir string) Config {
	c := DefaultConfig()
	c.Path = filepath.Join(dir, "events.jsonl")
	return c
}

// send sends n records, beginning with number from.
func send(t *testing.T, s *Sink, from, n int) {
	t.Helper()
	if err := try(t, s, from, n); err != nil {
		t.Fatalf("send records %d to %d: %v", from, from+n-1, err)
	}
}

func try(t *testing.T, s *Sink, from, n int) error {
	return s.Send(t.Context(), sinktest.Batch(s, sinktest.Records(from, n)))
}

// line returns the line of a record.
func line(number int) string {
	s := &Sink{}
	s.encoder.Format, s.encoder.Standalone = DefaultConfig().Format, true
	return string(sinktest.Batch(s, sinktest.Records(number, 1)).Data)
}

func lines(from, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(from + i))
	}
	return b.String()
}

// names returns the names of the files in a directory, except the lock file.
func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "events.jsonl.lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// read returns the decompressed content of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, ".gz") {
		return string(b)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(b)
}

// readAll returns the content of all files of a directory in the order of their names, the current one
// last.
func readAll(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range names(t, dir) {
		b.WriteString(read(t, filepath.Join(dir, name)))
	}
	return b.String()
}

// numbers returns the numbers of the records in a text of whole lines.
func numbers(t *testing.T, text string) (numbers []int) {
	t.Helper()
	for l := range strings.Lines(text) {
		var got struct{ Event struct{ Message string } }
		var n int
		if err := json.Unmarshal([]byte(l), &got); err != nil || !strings.HasSuffix(l, "\n") {
			t.Fatalf("torn line %q: %v", l, err)
		}
		if _, err := fmt.Sscanf(got.Event.Message, "record-%d.", &n); err != nil {
			t.Fatalf("foreign line %q: %v", l, err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// wantOnce checks that a text has the records from 0 to n-1 once, in order.
func wantOnce(t *testing.T, text string, n int) {
	t.Helper()
	want := make([]int, n)
	for i := range want {
		want[i] = i
	}
	if got := numbers(t, text); !slices.Equal(got, want) {
		t.Errorf("got records %v, want 0 to %d", got, n-1)
	}
}

// wantAll checks that a text has the records from 0 to n-1 in order, and returns the number of
// repeated ones.
func wantAll(t *testing.T, text string, n int) (again int) {
	t.Helper()
	next := 0
	for _, got := range numbers(t, text) {
		switch {
		case got == next:
			next++
		case got < next:
			again++
		default:
			t.Fatalf("got record %d, want %d: records were lost", got, next)
		}
	}
	if next != n {
		t.Fatalf("records end at %d, want %d", next, n)
	}
	return again
}

// logs is a log that can be read and written concurrently.
type logs struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), message)
}

// faultyFS is a file system; its operations fail with the error of before, which may be nil.
type faultyFS struct {
	osFileSystem
	mu     sync.Mutex // guards before and partly
	before func(op, path string) error
	partly int // bytes that a failing write writes
	boot   string
}

func (d *faultyFS) set(before func(op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

// failing makes the next operations of a kind fail.
func (d *faultyFS) failing(op string, times int, err error) {
	d.set(func(o, path string) error {
		if o != op || times == 0 {
			return nil
		}
		times--
		return &fs.PathError{Op: op, Path: path, Err: err}
	})
}

func (d *faultyFS) check(op, path string) error {
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(op, path)
}

func (d *faultyFS) OpenFile(path string, flag int, perm fs.FileMode) (file, error) {
	if err := d.check("open", path); err != nil {
		return nil, err
	}
	f, err := d.osFileSystem.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, d, path}, nil
}

func (d *faultyFS) Lstat(path string) (fs.FileInfo, error) {
	if err := d.check("lstat", path); err != nil {
		return nil, err
	}
	return d.osFileSystem.Lstat(path)
}

func (d *faultyFS) ReadDir(path string) ([]string, error) {
	if err := d.check("readdir", path); err != nil {
		return nil, err
	}
	return d.osFileSystem.ReadDir(path)
}

func (d *faultyFS) Rename(from, to string) error {
	if err := d.check("rename", from); err != nil {
		return err
	}
	return d.osFileSystem.Rename(from, to)
}

func (d *faultyFS) Remove(path string) error {
	if err := d.check("remove", path); err != nil {
		return err
	}
	return d.osFileSystem.Remove(path)
}

// BootID implements fileSystem.
func (d *faultyFS) BootID() string { return d.boot }

func (d *faultyFS) SyncDir(path string) error {
	return d.check("syncdir", path) // the machine does not crash during a test
}

type faultyFile struct {
	file
	disk *faultyFS
	path string
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.disk.check("write", f.path); err != nil {
		n, _ := f.file.Write(b[:min(len(b), f.disk.partly)])
		return n, err
	}
	return f.file.Write(b)
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.disk.check("write state", f.path); err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, at)
}

func (f *faultyFile) Sync() error {
	return f.disk.check("sync", f.path)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.disk.check("truncate", f.path); err != nil {
		return err
	}
	return f.file.Truncate(size)
}
