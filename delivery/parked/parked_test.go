package parked

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// stores runs a test with both kinds of a store; reopen opens the store again.
func stores(t *testing.T, test func(t *testing.T, s *Store, reopen func() *Store)) {
	t.Run("directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "parked", "loki")
		reopen := func() *Store { return mustOpen(t, dir) }
		test(t, reopen(), reopen)
	})
	t.Run("memory", func(t *testing.T) {
		s := NewMemory(0)
		test(t, s, func() *Store { return s })
	})
}

func mustOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var parkedAt = time.Unix(1563534000, 0)

func add(t *testing.T, q *Queue, records ...string) {
	t.Helper()
	var data []byte
	var ends []int
	for _, r := range records {
		data = append(data, r...)
		ends = append(ends, len(data))
	}
	if err := q.Append(data, ends, parkedAt); err != nil {
		t.Fatal(err)
	}
}

func numbered(from, n int) (records []string) {
	for i := range n {
		records = append(records, fmt.Sprintf("record %d", from+i))
	}
	return records
}

func peek(t *testing.T, q *Queue, atLeast, size int) []Record {
	t.Helper()
	records, err := q.Peek(atLeast, size)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func texts(records []Record) (all []string) {
	for _, r := range records {
		all = append(all, string(r.Data))
	}
	return all
}

func TestQueueReturnsItsRecordsInOrder(t *testing.T) {
	stores(t, func(t *testing.T, s *Store, reopen func() *Store) {
		q := s.Queue(`{job="x"}`)
		add(t, q, numbered(0, 5)...)
		add(t, q, numbered(5, 5)...)
		add(t, s.Queue("other"), "x")
		got := peek(t, q, 3, 0)
		if !slices.Equal(texts(got), numbered(0, 3)) || !got[0].ParkedAt.Equal(parkedAt) {
			t.Errorf("the first 3 records are %+v", got)
		}
		if err := q.Drop(got[:2]); err != nil {
			t.Fatal(err)
		}
		s = reopen()
		if names := s.Queues(); len(names) != 2 || names[1].Name() != `{job="x"}` {
			t.Fatalf("queues are %v", names)
		}
		if n, bytes := s.Size(); n != 9 || bytes == 0 {
			t.Errorf("%d records, %d bytes, want 9 records", n, bytes)
		}
		q = s.Queue(`{job="x"}`)
		got = peek(t, q, 1, 1000)
		if !slices.Equal(texts(got), numbered(2, 8)) {
			t.Errorf("the records after a restart are %v", texts(got))
		}
		if removed, err := q.Remove(); removed || err != nil {
			t.Errorf("a queue with records was removed: %v, %v", removed, err)
		}
		if err := q.Drop(got); err != nil {
			t.Fatal(err)
		}
		if removed, err := q.Remove(); !removed || err != nil {
			t.Errorf("an empty queue was not removed: %v, %v", removed, err)
		}
		s = reopen()
		if n, _ := s.Size(); n != 1 {
			t.Errorf("%d records, want 1 in the other queue", n)
		}
	})
}

// A queue that never becomes empty does not keep dropped records on disk.
func TestQueueIsCompacted(t *testing.T) {
	stores(t, func(t *testing.T, s *Store, reopen func() *Store) {
		q := s.Queue("a")
		record := string(bytes.Repeat([]byte("x"), 100<<10))
		next := 0
		for range 200 {
			add(t, q, fmt.Sprint(next), record)
			next++
			if q.Len() > 6 {
				if err := q.Drop(peek(t, q, 2, 0)); err != nil {
					t.Fatal(err)
				}
			}
		}
		size := int64(0)
		if q.path == "" {
			size = int64(len(q.memory.b))
		} else if info, err := os.Stat(q.path); err != nil {
			t.Fatal(err)
		} else {
			size = info.Size()
		}
		if size > 3<<20 {
			t.Errorf("%d bytes for %d records", size, q.Len())
		}
		q = reopen().Queue("a")
		for got := peek(t, q, 2, 0); len(got) > 0; got = peek(t, q, 2, 0) {
			if string(got[0].Data) != fmt.Sprint(next-q.Len()/2) {
				t.Fatalf("found record %s while the queue has %d records", got[0].Data, q.Len())
			}
			if err := q.Drop(got); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A crash during Append or Drop loses no earlier record.
func TestQueueAfterACrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parked", "loki")
	s := mustOpen(t, dir)
	q := s.Queue("a")
	add(t, q, numbered(0, 4)...)
	if err := q.Drop(peek(t, q, 1, 0)); err != nil {
		t.Fatal(err)
	}
	intact, err := os.ReadFile(q.path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, q, "incomplete")
	longer, err := os.ReadFile(q.path)
	if err != nil {
		t.Fatal(err)
	}
	torn := slices.Clone(intact)
	torn[headAt+1] ^= 1
	for name, c := range map[string]struct {
		file []byte
		want []string
	}{
		"an incomplete append":                 {longer[:len(longer)-3], numbered(1, 3)},
		"a file that ends in zeros":            {append(slices.Clone(intact), make([]byte, 30)...), numbered(1, 3)},
		"a torn head":                          {torn, numbered(0, 4)},
		"a damaged last record":                {append(slices.Clone(intact[:len(intact)-1]), 'x'), numbered(1, 2)},
		"an intact file":                       {intact, numbered(1, 3)},
		"an intact file with a further record": {longer, append(numbered(1, 3), "incomplete")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(q.path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			q := mustOpen(t, dir).Queue("a")
			if got := texts(peek(t, q, 100, 0)); !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			add(t, q, "after")
			q = mustOpen(t, dir).Queue("a")
			if got := texts(peek(t, q, 100, 0)); !slices.Equal(got, append(slices.Clone(c.want), "after")) {
				t.Errorf("after a further record, found %q", got)
			}
		})
	}
}

// An unreadable file is kept, even if its stream is parked again.
func TestUnreadableFileIsKept(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	q := s.Queue("a")
	for n := range 2 {
		add(t, q, "older")
		intact, err := os.ReadFile(q.path)
		if err != nil {
			t.Fatal(err)
		}
		intact[0] ^= 1
		if err := os.WriteFile(q.path, intact, 0o600); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir)
		if got := len(s.Queues()); got != 0 {
			t.Errorf("%d queues", got)
		}
		q = s.Queue("a")
		add(t, q, "newer")
		if got := texts(peek(t, q, 1, 0)); !slices.Equal(got, []string{"newer"}) {
			t.Errorf("found %q", got)
		}
		kept := 0
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && bytes.Equal(b, intact) {
				kept++
			}
		}
		if kept != 1 || len(entries) != n+2 {
			t.Errorf("%d files; the unreadable one is among them %d times", len(entries), kept)
		}
	}
}

// The process may end before it has removed an empty file.
func TestEmptyFileIsRemoved(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, dir).Queue("a")
	add(t, q, "x")
	if err := q.Drop(peek(t, q, 1, 0)); err != nil {
		t.Fatal(err)
	}
	q = mustOpen(t, dir).Queue("a")
	if _, err := os.Stat(q.path); !os.IsNotExist(err) {
		t.Errorf("the file of an empty queue exists: %v", err)
	}
}

// There may be more streams than a process may have files open.
func TestQueuesKeepNoFilesOpen(t *testing.T) {
	const open = "/proc/self/fd"
	count := func() int {
		entries, err := os.ReadDir(open)
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	dir := t.TempDir()
	s := mustOpen(t, dir)
	before := count()
	for i := range 100 {
		add(t, s.Queue(fmt.Sprint(i)), numbered(0, 3)...)
	}
	s = mustOpen(t, dir)
	if got := len(s.Queues()); got != 100 {
		t.Fatalf("%d queues", got)
	}
	for _, q := range s.Queues() {
		if err := q.Drop(peek(t, q, 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got > before+50 {
		t.Errorf("%d files are open for 100 queues, %d before", got, before)
	}
}

func TestOtherFilesAreKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes"), []byte("notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	if n := len(s.Queues()); n != 0 {
		t.Errorf("%d queues", n)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "notes")); string(b) != "notes" {
		t.Errorf("the file changed to %q, %v", b, err)
	}
}

func TestExcessReturnsTheLargestQueue(t *testing.T) {
	s := NewMemory(1000)
	add(t, s.Queue("small"), "x")
	if q, _ := s.Excess(); q != nil {
		t.Error("Excess returns a queue within the bound")
	}
	add(t, s.Queue("large"), string(make([]byte, 1000)))
	q, over := s.Excess()
	if q == nil || q.Name() != "large" || over <= 0 || over > 100 {
		t.Errorf("Excess returns %v, %d bytes", q, over)
	}
}

// FuzzOpen opens a file with arbitrary content.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	q := s.Queue("a")
	if err := q.Append([]byte("onetwo"), []int{3, 6}, parkedAt); err != nil {
		f.Fatal(err)
	}
	intact, err := os.ReadFile(q.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(intact)
	f.Add(intact[:len(intact)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, file []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a"+suffix), file, 0o600); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, dir)
		for _, q := range s.Queues() {
			records, err := q.Peek(q.Len(), 0)
			if err != nil || len(records) != q.Len() {
				t.Fatalf("%d of %d records, %v", len(records), q.Len(), err)
			}
		}
	})
}
