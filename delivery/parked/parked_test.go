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

// stores are the two kinds of a store; reopen opens a store again with its records.
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

func front(t *testing.T, q *Queue, atLeast, size int) []Record {
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

func TestQueueGivesBackWhatItWasGiven(t *testing.T) {
	stores(t, func(t *testing.T, s *Store, reopen func() *Store) {
		q := s.Queue(`{job="x"}`)
		add(t, q, numbered(0, 5)...)
		add(t, q, numbered(5, 5)...)
		add(t, s.Queue("other"), "x")
		got := front(t, q, 3, 0)
		if !slices.Equal(texts(got), numbered(0, 3)) || !got[0].ParkedAt.Equal(parkedAt) {
			t.Errorf("the first 3 are %+v", got)
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
		got = front(t, q, 1, 1000)
		if !slices.Equal(texts(got), numbered(2, 8)) {
			t.Errorf("then there are %v", texts(got))
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
			t.Errorf("%d records, want the one of the other queue", n)
		}
	})
}

// A queue that never becomes empty does not keep dropped records on disk.
func TestQueueLetsGoOfSpace(t *testing.T) {
	stores(t, func(t *testing.T, s *Store, reopen func() *Store) {
		q := s.Queue("a")
		record := string(bytes.Repeat([]byte("x"), 100<<10))
		next := 0
		for range 200 {
			add(t, q, fmt.Sprint(next), record)
			next++
			if q.Len() > 6 {
				if err := q.Drop(front(t, q, 2, 0)); err != nil {
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
		for got := front(t, q, 2, 0); len(got) > 0; got = front(t, q, 2, 0) {
			if string(got[0].Data) != fmt.Sprint(next-q.Len()/2) {
				t.Fatalf("found %s with %d left", got[0].Data, q.Len())
			}
			if err := q.Drop(got); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// After a crash in the middle of an Append, or of a Drop, nothing is lost that was
// there before.
func TestQueueAfterACrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parked", "loki")
	s := mustOpen(t, dir)
	q := s.Queue("a")
	add(t, q, numbered(0, 4)...)
	if err := q.Drop(front(t, q, 1, 0)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(q.path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, q, "unfinished")
	longer, err := os.ReadFile(q.path)
	if err != nil {
		t.Fatal(err)
	}
	torn := slices.Clone(whole)
	torn[headAt+1] ^= 1
	for name, c := range map[string]struct {
		file []byte
		want []string
	}{
		"a torn append":           {longer[:len(longer)-3], numbered(1, 3)},
		"an append of zeroes":     {append(slices.Clone(whole), make([]byte, 30)...), numbered(1, 3)},
		"a head that was torn":    {torn, numbered(0, 4)},
		"the last is damaged":     {append(slices.Clone(whole[:len(whole)-1]), 'x'), numbered(1, 2)},
		"whole":                   {whole, numbered(1, 3)},
		"whole, with one further": {longer, append(numbered(1, 3), "unfinished")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(q.path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			q := mustOpen(t, dir).Queue("a")
			if got := texts(front(t, q, 100, 0)); !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			add(t, q, "after")
			q = mustOpen(t, dir).Queue("a")
			if got := texts(front(t, q, 100, 0)); !slices.Equal(got, append(slices.Clone(c.want), "after")) {
				t.Errorf("then found %q", got)
			}
		})
	}
}

// A file that cannot be read is kept, also where its stream is parked again.
func TestAFileThatCannotBeReadIsKept(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	q := s.Queue("a")
	for n := range 2 {
		add(t, q, "older")
		whole, err := os.ReadFile(q.path)
		if err != nil {
			t.Fatal(err)
		}
		whole[0] ^= 1
		if err := os.WriteFile(q.path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir)
		if got := len(s.Queues()); got != 0 {
			t.Errorf("%d queues", got)
		}
		q = s.Queue("a")
		add(t, q, "newer")
		if got := texts(front(t, q, 1, 0)); !slices.Equal(got, []string{"newer"}) {
			t.Errorf("found %q", got)
		}
		kept := 0
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && bytes.Equal(b, whole) {
				kept++
			}
		}
		if kept != 1 || len(entries) != n+2 {
			t.Errorf("%d files, of which %d are the one that could not be read", len(entries), kept)
		}
	}
}

// A file that holds nothing is removed, as if the process had done so before it ended.
func TestAnEmptyFileIsRemoved(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, dir).Queue("a")
	add(t, q, "x")
	if err := q.Drop(front(t, q, 1, 0)); err != nil {
		t.Fatal(err)
	}
	q = mustOpen(t, dir).Queue("a")
	if _, err := os.Stat(q.path); !os.IsNotExist(err) {
		t.Errorf("the file of a queue without records: %v", err)
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
		if err := q.Drop(front(t, q, 1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got > before+50 {
		t.Errorf("%d files are open for 100 queues, %d before", got, before)
	}
}

func TestStoreLeavesForeignFilesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes"), []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	if n := len(s.Queues()); n != 0 {
		t.Errorf("%d queues", n)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "notes")); string(b) != "not ours" {
		t.Errorf("the file is %q now, %v", b, err)
	}
}

func TestExcessIsThatOfTheLargest(t *testing.T) {
	s := NewMemory(1000)
	add(t, s.Queue("small"), "x")
	if q, _ := s.Excess(); q != nil {
		t.Error("an excess within the bound")
	}
	add(t, s.Queue("large"), string(make([]byte, 1000)))
	q, over := s.Excess()
	if q == nil || q.Name() != "large" || over <= 0 || over > 100 {
		t.Errorf("excess is %v, %d bytes", q, over)
	}
}

// FuzzOpen puts any bytes in the place of a file.
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
	whole, err := os.ReadFile(q.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
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
