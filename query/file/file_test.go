package file

import (
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
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

// event returns a line with an Event.
func event(name string) string {
	return `{"verb":"ADDED","event":{"metadata":{"name":"` + name + `"},"involvedObject":{}}}` + "\n"
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
	if err := f.Range(t.Context(), from, func(e format.Entry) error { all = append(all, e.Record.Event.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestRange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	write(t, filepath.Join(dir, "events-20260301T000000.000Z.jsonl"), event("a"), event("b"))
	compress(t, filepath.Join(dir, "events-20260301T000000.000Z.jsonl")) // both exist, as after a crash
	write(t, filepath.Join(dir, "events-20260302T000000.000Z.jsonl"), event("c"))
	compress(t, filepath.Join(dir, "events-20260302T000000.000Z.jsonl"))
	if err := os.Remove(filepath.Join(dir, "events-20260302T000000.000Z.jsonl")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "events-20260303T000000.000Z.jsonl"), event("d"), "\n", event("e"))
	for _, other := range []string{"events-20260303T000000.000Z.jsonl.gz.tmp", "events-old.jsonl", "more-20260303T000000.000Z.jsonl", "events.jsonl.lock"} {
		write(t, filepath.Join(dir, other), event("wrong"))
	}
	long := strings.Repeat("f", 300<<10)
	write(t, path, event(long), event("torn")[:20])

	f := open(t, path)
	if got, want := read(t, f, time.Time{}), "a b c d e "+long; got != want {
		t.Errorf("got %.80s, want %.80s", got, want)
	}
	if got := read(t, f, time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)); got != "d e "+long {
		t.Errorf("with from, got %.80s", got)
	}
	one := open(t, filepath.Join(dir, "events-20260302T000000.000Z.jsonl.gz"))
	if got := read(t, one, time.Time{}); got != "c" {
		t.Errorf("one file alone: %q", got)
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"missing":           filepath.Join(dir, "events.jsonl"),
		"missing directory": filepath.Join(dir, "absent", "events.jsonl"),
		"directory":         dir,
	} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := filepath.Join(dir, "bad-20260302T000000.000Z.jsonl.gz")
	write(t, bad, "\x1f\x8bno gzip")
	f := open(t, filepath.Join(dir, "bad.jsonl"))
	if got := read(t, f, time.Time{}); got != "" {
		t.Errorf("got Events %q from damaged data", got)
	}
	if _, err := f.Problems(); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("damage: %v", err)
	}
}

// TestOtherFiles checks files that no sink has written, and the problems reported.
func TestOtherFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.json")
	const list = `{"kind":"EventList","apiVersion":"v1","items":[` + "\n" + `{"metadata":{"name":"a"},"involvedObject":{}},` + "\n" + `{"metadata":{"name":"b"},"involvedObject":{}}]}`
	for name, c := range map[string]struct {
		text     string
		events   string
		problems []string
		failed   bool
	}{
		"list": {text: list, events: "a b"},
		"frames": {
			text:   `{"type":"ADDED","object":{"kind":"Event","metadata":{"name":"a"}}}` + "\n" + `{"type":"DELETED","object":{"kind":"Event","metadata":{"name":"a"}}}` + "\n",
			events: "a",
		},
		"truncated list":               {text: list[:len(list)-3], events: "a", problems: []string{path + ": line 1: not an Event in JSON: truncated at the end of the input"}},
		"foreign lines":                {text: "hello\n" + event("a"), events: "a", problems: []string{path + `: line 1: looks like text: "hello"`}},
		"truncated line":               {text: event("a")[:20], problems: []string{path + ": line 1: not an Event in JSON: truncated in a string"}, failed: true},
		"a Deployment":                 {text: "apiVersion: apps/v1\nkind: Deployment\n", problems: []string{path + ": line 1: not an Event, but Deployment"}, failed: true},
		"archive":                      {text: "PK\x03\x04\x00", problems: []string{path + " looks like a zip archive, which is not supported"}, failed: true},
		"watch that ended in an error": {text: event("a") + `{"type":"ERROR","object":{"message":"gone"}}`, events: "a", problems: []string{path + ": line 2: the API server returned an error: gone"}, failed: true},
		"empty":                        {},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			f := open(t, path)
			for range 2 { // Range may be repeated
				if got := read(t, f, time.Time{}); got != c.events {
					t.Errorf("got Events %q, want %q", got, c.events)
				}
				problems, err := f.Problems()
				if !slices.Equal(problems, c.problems) || (err != nil) != c.failed {
					t.Errorf("got problems %q, %v; want %q", problems, err, c.problems)
				}
			}
		})
	}
}

// TestFollow checks that each line is visited once, across rotations.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	write(t, path, event("a"), event("b")[:30])
	f := open(t, path)
	got := read(t, f, time.Time{})
	ctx := t.Context()
	f.visit = func(e format.Entry) error { got += e.Record.Event.Name + " "; return nil }
	next := func(want string) {
		t.Helper()
		got = ""
		if err := f.catchUp(ctx); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	next("")
	write(t, path, event("b")[30:], event("c"))
	next("b c ")
	write(t, path, event("d"))
	rename := func(to string) {
		if err := os.Rename(path, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	rename("events-20260301T000000.000Z.jsonl")
	next("d ")
	write(t, path, event("e"))
	rename("events-20260302T000000.000Z.jsonl")
	write(t, path, event("f"))
	next("e f ")
	rename("events-20260303T000000.000Z.jsonl")
	write(t, path, event("g"))
	next("g ")
	next("")

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.Follow(ended, func(format.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("follow: %v", err)
	}
	enough := errors.New("enough")
	write(t, path, event("h"))
	if err := f.Follow(ctx, func(format.Entry) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("follow: %v", err)
	}
}
