package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// A record that is damaged after Next has visited it fails Read. A gap is declared for it once
// the consumer starts again.
func TestDamageBetweenNextAndRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dropped := map[string]int{}
	j := openDir(t, dir, Options{
		Namespace: "monitoring", Consumers: consumers("a"),
		OnDrop: func(consumer string, cause event.Cause, n int) { dropped[consumer+" "+string(cause)] += n },
	})
	c := mustConsumer(t, j, "a")
	mustAppend(t, j, records(1, 10, 100)...)
	mustAppend(t, j, record(11, 100))
	entries := read(t, c, 11)
	mustAck(t, c, entries[2].Offset)
	flip(t, segmentFiles(t, dir)[0], int64(entries[6].Location.Start+frameHead+20), 3)

	got, err := lookUp(c, entries[3:]...)
	if !errors.Is(err, storage.ErrDamaged) || len(got) != 3 || got[2] != 6 {
		t.Fatalf("read %v, %v; want 4 to 6 and an error", got, err)
	}
	again := readAll(t, mustConsumer(t, j, "a"))
	wantEntries(t, again, "4-6 damage(6..8 missed 1) 8-11")
	if gap := again[3].Record; gap.OnlySink != "a" || gap.Event.Namespace != "monitoring" {
		t.Errorf("gap record: %+v", gap)
	}
	if len(dropped) != 1 || dropped["a damage"] != 1 {
		t.Errorf("counted as dropped: %v, want 1 for damage", dropped)
	}
	ackAll(t, c, again)
	if p := j.Positions("a")[""]; p != positionAt(11) {
		t.Errorf("acknowledged up to %v, want 11", p)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	const (
		damaged = "records in the journal are damaged or missing"
		cut     = "incomplete or damaged end of the journal truncated"
	)
	cursor := func(dir string) string { return filepath.Join(dir, "a.cursor") }
	cases := []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string // entries
		tail   uint64
		log    string // text of the only line; empty: no line
	}{
		{
			name:   "none",
			damage: func(t *testing.T, dir string) {},
			want:   "11-100", tail: 100,
		},
		{
			name: "last record incomplete",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, at+100))
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "head of the last record incomplete",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, at+frameHead-1))
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "last segment ends with zeros",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, at))
				must(t, os.Truncate(path, at+5000))
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "bit flipped in the last record",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				flip(t, path, at+500, 3)
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "bit flipped in a record",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				flip(t, path, at+500, 3)
			},
			want: "11-49 damage(49..51 missed 1) 51-100", tail: 100, log: damaged,
		},
		{
			name: "bit flipped in a record of the last segment",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 99)
				flip(t, path, at+500, 3)
			},
			want: "11-98 damage(98..100 missed 1) 100", tail: 100, log: damaged,
		},
		{
			// This looks like a torn write: the tail is before it, and the watch reads the
			// record again.
			name: "bit flipped in the last group",
			damage: func(t *testing.T, dir string) {
				j := openDir(t, dir, Options{MaxBytes: 150_000, Consumers: consumers("a")})
				mustAppend(t, j, records(101, 104, 10)...)
				must(t, j.Close())
				path, at := segmentWith(t, dir, 102)
				flip(t, path, at+100, 3)
			},
			want: "11-101", tail: 101, log: cut,
		},
		{
			name: "bit flipped in the length of a record",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				flip(t, path, at+6, 7)
			},
			want: "11-49 damage(49..51 missed 1) 51-100", tail: 100, log: damaged,
		},
		{
			name: "bit flipped in the magic of a record",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				flip(t, path, at, 0)
			},
			want: "11-49 damage(49..51 missed 1) 51-100", tail: 100, log: damaged,
		},
		{
			name: "bit flipped in the first unacknowledged record",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 11)
				flip(t, path, at+500, 3)
			},
			want: "damage(10..12 missed 1) 12-100", tail: 100, log: damaged,
		},
		{
			name: "bit flipped in an acknowledged record",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 10)
				flip(t, path, at+500, 3)
			},
			want: "11-100", tail: 100,
		},
		{
			name: "two records damaged",
			damage: func(t *testing.T, dir string) {
				for _, v := range []uint64{30, 60} {
					path, at := segmentWith(t, dir, v)
					flip(t, path, at+500, 3)
				}
			},
			want: "11-29 damage(29..31 missed 1) 31-59 damage(59..61 missed 1) 61-100", tail: 100, log: damaged,
		},
		{
			name: "segment header damaged",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 50)
				overwrite(t, path, 3, []byte("damaged")...)
			},
			want: "11-100", tail: 100,
		},
		{
			name: "header of the last segment damaged",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 100)
				overwrite(t, path, 3, []byte("damaged")...)
			},
			want: "11-100", tail: 100, log: "segment header is damaged",
		},
		{
			name: "block zeroed",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				overwrite(t, path, at+500, make([]byte, 1500)...)
			},
			want: "11-49 damage(49..52 missed 2) 52-100", tail: 100, log: damaged,
		},
		{
			name: "segment in the middle truncated",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				must(t, os.Truncate(path, at+10))
			},
			// Segments hold seven: 50-56.
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "segment in the middle missing",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 50)
				must(t, os.Remove(path))
			},
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "first segment missing",
			damage: func(t *testing.T, dir string) {
				must(t, os.Remove(segmentFiles(t, dir)[0]))
			},
			want: "damage(10..15 missed 4) 15-100", tail: 100, log: damaged,
		},
		{
			name: "last segment missing",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 100)
				must(t, os.Remove(path))
			},
			// The watch reads the records after the tail again.
			want: "11-98", tail: 98,
		},
		{
			name: "all segments missing",
			damage: func(t *testing.T, dir string) {
				for _, path := range segmentFiles(t, dir) {
					must(t, os.Remove(path))
				}
			},
			want: "", tail: 0, log: "cursor is beyond the end of the journal",
		},
		{
			name: "segment empty",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 50)
				must(t, os.Truncate(path, 0))
			},
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "last segment empty",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, 0))
			},
			want: "11-98", tail: 98, log: "segment header is damaged",
		},
		{
			name: "segment replaced by a copy of another",
			damage: func(t *testing.T, dir string) {
				from, _ := segmentWith(t, dir, 30)
				to, _ := segmentWith(t, dir, 50)
				b, err := os.ReadFile(from)
				must(t, err)
				must(t, os.WriteFile(to, b, 0o600))
			},
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "both slots of the cursor damaged",
			damage: func(t *testing.T, dir string) {
				overwrite(t, cursor(dir), 40, 'x')
				overwrite(t, cursor(dir), 4<<10+40, 'x')
			},
			// The oldest record: segments hold seven.
			want: "8-100", tail: 100, log: "cursor is damaged",
		},
		{
			name: "cursor empty",
			damage: func(t *testing.T, dir string) {
				must(t, os.Truncate(cursor(dir), 0))
			},
			want: "8-100", tail: 100, log: "cursor is damaged",
		},
		{
			name: "cursor of another consumer",
			damage: func(t *testing.T, dir string) {
				writeCursor(t, dir, "b", 50)
				must(t, os.Rename(filepath.Join(dir, "b.cursor"), cursor(dir)))
			},
			want: "8-100", tail: 100, log: "cursor is damaged",
		},
		{
			name: "cursor beyond the end",
			damage: func(t *testing.T, dir string) {
				writeCursor(t, dir, "a", 500)
			},
			want: "", tail: 100, log: "cursor is beyond the end of the journal",
		},
		{
			name: "foreign files",
			damage: func(t *testing.T, dir string) {
				for _, name := range []string{"1.log", "00000000000000000200.log.tmp", "a.cursor.tmp", "b%zz.cursor", "README"} {
					must(t, os.WriteFile(filepath.Join(dir, name), []byte("something"), 0o600))
				}
				must(t, os.MkdirAll(filepath.Join(dir, "00000000000000000300.log"), 0o700))
			},
			want: "11-100", tail: 100,
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir, o := hundredRecords(t)
			tc.damage(t, dir)
			var log logBuffer
			o.Logger = log.logger()
			lines := strings.Count(tc.want, "damage(")
			if lines == 0 && tc.log != "" {
				lines = 1
			}
			for i := range 2 { // with the same result
				j := openDir(t, dir, o)
				if got := j.Tail("").Version; got != tc.tail {
					t.Errorf("tail is %d, want %d", got, tc.tail)
				}
				wantEntries(t, readAll(t, mustConsumer(t, j, "a")), tc.want)
				j.Close()
				if got := strings.Count(log.String(), "\n"); i == 0 && got != lines {
					t.Errorf("%d lines were logged, want %d:\n%s", got, lines, log.String())
				}
			}
			if tc.log == "" && log.String() != "" || tc.log != "" && log.count(tc.log) == 0 {
				t.Errorf("want %q in the log:\n%s", tc.log, log.String())
			}
			// Records can be appended.
			j := openDir(t, dir, o)
			next := tc.tail + 1
			mustAppend(t, j, records(next, next+20, smallRecord)...)
			entries := readAll(t, mustConsumer(t, j, "a"))
			if got := summary(entries[len(entries)-21:]); got != fmt.Sprintf("%d-%d", next, next+20) {
				t.Errorf("records appended afterwards: %s", got)
			}
		})
	}
}

func TestDamageWithSeveralSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openDir(t, dir, Options{Consumers: consumers("a")})
	for v := uint64(1); v <= 9; v++ {
		r := record(v, 10)
		r.Source = []string{"loki", "tempo", "mimir"}[v%3]
		mustAppend(t, j, r)
	}
	j.Close()
	path, at := segmentWith(t, dir, 5)
	flip(t, path, at+100, 0)
	j = openDir(t, dir, Options{Consumers: consumers("a")})
	c := mustConsumer(t, j, "a")
	entries := readAll(t, c)
	// The source of the damaged record is unknown: each source has a gap record.
	var gaps []string
	for _, e := range entries {
		if a := e.Record.Event.Annotations; e.Record.Gap {
			gaps = append(gaps, fmt.Sprintf("%s %s..%s", e.Record.Source, a["hindsight/from_version"], a["hindsight/to_version"]))
		}
	}
	if got, want := strings.Join(gaps, ", "), "loki 3..6, mimir 2..8, tempo 4..7"; got != want {
		t.Errorf("gaps: %s, want %s", got, want)
	}
	ackAll(t, c, entries)
	if s := j.Stats().Consumers["a"]; s.Behind != 0 {
		t.Errorf("behind by %d after the last acknowledgement", s.Behind)
	}
}
