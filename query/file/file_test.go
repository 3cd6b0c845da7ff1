package file

import (
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/query/line"
)

func write(t *testing.T, path string, lines ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(lines, "")); err != nil {
		t.Fatal(err)
	}
}

func compress(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(path + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	z := gzip.NewWriter(out)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *Files {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func read(t *testing.T, f *Files, from time.Time) string {
	t.Helper()
	var all []string
	if err := f.Range(t.Context(), from, func(e line.Entry) error { all = append(all, e.Line); return nil }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestFilesAreReadInOrder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	write(t, filepath.Join(dir, "events-20260301T000000.000Z.jsonl"), "a\n", "b\n")
	compress(t, filepath.Join(dir, "events-20260301T000000.000Z.jsonl")) // both, after a crash
	write(t, filepath.Join(dir, "events-20260302T000000.000Z.jsonl"), "c\n")
	compress(t, filepath.Join(dir, "events-20260302T000000.000Z.jsonl"))
	if err := os.Remove(filepath.Join(dir, "events-20260302T000000.000Z.jsonl")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "events-20260303T000000.000Z.jsonl"), "d\n", "\n", "e\n")
	for _, other := range []string{"events-20260303T000000.000Z.jsonl.gz.tmp", "events-old.jsonl", "more-20260303T000000.000Z.jsonl", "events.jsonl.lock"} {
		write(t, filepath.Join(dir, other), "wrong\n")
	}
	long := strings.Repeat("f", 300<<10)
	write(t, path, long+"\n", "torn")

	f := open(t, path)
	if got, want := read(t, f, time.Time{}), "a b c d e "+long; got != want {
		t.Errorf("got %.80s, want %.80s", got, want)
	}
	if got := read(t, f, time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)); got != "d e "+long {
		t.Errorf("files that are too old are read: %.80s", got)
	}
	one := open(t, filepath.Join(dir, "events-20260302T000000.000Z.jsonl.gz"))
	if got := read(t, one, time.Time{}); got != "c" {
		t.Errorf("one file alone: %q", got)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"missing":           filepath.Join(dir, "events.jsonl"),
		"missing directory": filepath.Join(dir, "absent", "events.jsonl"),
		"a directory":       dir,
	} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := filepath.Join(dir, "bad-20260302T000000.000Z.jsonl.gz")
	write(t, bad, "no gzip")
	f := open(t, filepath.Join(dir, "bad.jsonl"))
	err := f.Range(t.Context(), time.Time{}, func(line.Entry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("damage: %v", err)
	}
}

// What is written while it is followed is visited once, also while files are
// moved away.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	write(t, path, "a\n", "b")
	f := open(t, path)
	got := read(t, f, time.Time{})
	ctx := t.Context()
	next := func(want string) {
		t.Helper()
		got = ""
		if err := f.catchUp(ctx, func(e line.Entry) error { got += e.Line + " "; return nil }); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	next("")
	write(t, path, "b\n", "c\n")
	next("bb c ")
	write(t, path, "d\n")
	rename := func(to string) {
		if err := os.Rename(path, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	rename("events-20260301T000000.000Z.jsonl")
	next("d ")
	write(t, path, "e\n")
	rename("events-20260302T000000.000Z.jsonl")
	write(t, path, "f\n")
	next("e f ")
	rename("events-20260303T000000.000Z.jsonl")
	write(t, path, "g\n")
	next("g ")
	next("")

	enough := errors.New("enough")
	write(t, path, "h\n")
	if err := f.Follow(ctx, func(line.Entry) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("follow: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.Follow(ctx, func(line.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("follow: %v", err)
	}
}
