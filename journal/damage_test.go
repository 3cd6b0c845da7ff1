package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

func TestTransientReadErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a"), Logger: log.logger()})
		defer j.Close()
		mustAppend(t, j, records(1, 10, 10)...)
		failures := 0
		disk.mu.Lock()
		disk.failRead = func(string, int64) error {
			if failures++; failures < 5 {
				return syscall.EIO
			}
			return nil
		}
		disk.mu.Unlock()
		wantEntries(t, read(t, mustConsumer(t, j, "a"), 10), "1-10")
		if log.count("cannot read the journal, retrying") != 1 || log.count("journal is readable again") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestUnreadableBlockIsAGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := newSimDisk()
		j := mustOpen(t, disk, Options{Consumers: consumers("a")})
		defer j.Close()
		mustAppend(t, j, records(1, 1000, smallRecord)...)
		disk.mu.Lock()
		disk.failRead = func(_ string, at int64) error {
			if at <= 300_000 && 300_000 < at+128<<10 {
				return syscall.EIO
			}
			return nil
		}
		disk.mu.Unlock()
		var got []Entry
		for len(got) == 0 || version(got[len(got)-1]) < 1000 {
			entries, err := mustNext(t, j, got)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, entries...)
		}
		gaps := slices.DeleteFunc(slices.Clone(got), func(e Entry) bool { return !e.Record.Gap })
		if len(gaps) == 0 {
			t.Errorf("no gap record in %s", summary(got))
		}
	})
}

func mustNext(t *testing.T, j *Journal, before []Entry) ([]Entry, error) {
	j.mu.Lock()
	c := j.consumers["a"]
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	return nextEntries(ctx, c, 100)
}

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

// damagedJournal makes a journal of 100 records of one KiB, about four in a
// segment. Its consumer has acknowledged the first ten.
func damagedJournal(t testing.TB) (dir string, o Options) {
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
		want   string // what the consumer reads
		tail   uint64
		log    string // the one line about it; empty: none
	}{
		{
			name:   "none",
			damage: func(t *testing.T, dir string) {},
			want:   "11-100", tail: 100,
		},
		{
			name: "the last record is written in part",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, at+100))
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "the last record's head is written in part",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, at+frameHead-1))
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "the end of the last segment is zeros",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, at))
				must(t, os.Truncate(path, at+5000))
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "a bit of the last record is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 100)
				flip(t, path, at+500, 3)
			},
			want: "11-99", tail: 99, log: cut,
		},
		{
			name: "a bit of a record is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				flip(t, path, at+500, 3)
			},
			want: "11-49 damage(49..51 missed 1) 51-100", tail: 100, log: damaged,
		},
		{
			name: "a bit of a record in the last segment is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 99)
				flip(t, path, at+500, 3)
			},
			want: "11-98 damage(98..100 missed 1) 100", tail: 100, log: damaged,
		},
		{
			// Which cannot be told from a write torn by a loss of power: the
			// tail is before it, so that it comes from the watch again.
			name: "a bit of a record in the last group is flipped",
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
			name: "a bit of a record's length is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				flip(t, path, at+6, 7)
			},
			want: "11-49 damage(49..51 missed 1) 51-100", tail: 100, log: damaged,
		},
		{
			name: "a bit of a record's magic is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				flip(t, path, at, 0)
			},
			want: "11-49 damage(49..51 missed 1) 51-100", tail: 100, log: damaged,
		},
		{
			name: "a bit of the first record that is still wanted is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 11)
				flip(t, path, at+500, 3)
			},
			want: "damage(10..12 missed 1) 12-100", tail: 100, log: damaged,
		},
		{
			name: "a bit of a record that is not wanted any more is flipped",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 10)
				flip(t, path, at+500, 3)
			},
			want: "11-100", tail: 100,
		},
		{
			name: "two records apart are damaged",
			damage: func(t *testing.T, dir string) {
				for _, v := range []uint64{30, 60} {
					path, at := segmentWith(t, dir, v)
					flip(t, path, at+500, 3)
				}
			},
			want: "11-29 damage(29..31 missed 1) 31-59 damage(59..61 missed 1) 61-100", tail: 100, log: damaged,
		},
		{
			name: "a segment's header is damaged",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 50)
				overwrite(t, path, 3, []byte("damaged")...)
			},
			want: "11-100", tail: 100,
		},
		{
			name: "the last segment's header is damaged",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 100)
				overwrite(t, path, 3, []byte("damaged")...)
			},
			want: "11-100", tail: 100, log: "segment header is damaged",
		},
		{
			name: "a block is zeroed",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				overwrite(t, path, at+500, make([]byte, 1500)...)
			},
			want: "11-49 damage(49..52 missed 2) 52-100", tail: 100, log: damaged,
		},
		{
			name: "a segment in the middle ends early",
			damage: func(t *testing.T, dir string) {
				path, at := segmentWith(t, dir, 50)
				must(t, os.Truncate(path, at+10))
			},
			// Segments hold seven: 50-56.
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "a segment in the middle is missing",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 50)
				must(t, os.Remove(path))
			},
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "the first segment is missing",
			damage: func(t *testing.T, dir string) {
				must(t, os.Remove(segmentFiles(t, dir)[0]))
			},
			want: "damage(10..15 missed 4) 15-100", tail: 100, log: damaged,
		},
		{
			name: "the last segment is missing",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 100)
				must(t, os.Remove(path))
			},
			// The tail says so: what is behind it comes from the watch again.
			want: "11-98", tail: 98,
		},
		{
			name: "all segments are missing",
			damage: func(t *testing.T, dir string) {
				for _, path := range segmentFiles(t, dir) {
					must(t, os.Remove(path))
				}
			},
			want: "", tail: 0, log: "cursor is beyond the end of the journal",
		},
		{
			name: "a segment is empty",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 50)
				must(t, os.Truncate(path, 0))
			},
			want: "11-49 damage(49..57 missed 7) 57-100", tail: 100, log: damaged,
		},
		{
			name: "the last segment is empty",
			damage: func(t *testing.T, dir string) {
				path, _ := segmentWith(t, dir, 100)
				must(t, os.Truncate(path, 0))
			},
			want: "11-98", tail: 98, log: "segment header is damaged",
		},
		{
			name: "a segment is a copy of another",
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
			name: "a cursor has a bit flipped",
			damage: func(t *testing.T, dir string) {
				overwrite(t, cursor(dir), 40, 'x')
				overwrite(t, cursor(dir), 4<<10+40, 'x')
			},
			// The oldest that is kept: segments hold seven.
			want: "8-100", tail: 100, log: "cursor is damaged",
		},
		{
			name: "a cursor is empty",
			damage: func(t *testing.T, dir string) {
				must(t, os.Truncate(cursor(dir), 0))
			},
			want: "8-100", tail: 100, log: "cursor is damaged",
		},
		{
			name: "a cursor is that of another consumer",
			damage: func(t *testing.T, dir string) {
				writeCursor(t, dir, "b", 50)
				must(t, os.Rename(filepath.Join(dir, "b.cursor"), cursor(dir)))
			},
			want: "8-100", tail: 100, log: "cursor is damaged",
		},
		{
			name: "a cursor is from the future",
			damage: func(t *testing.T, dir string) {
				writeCursor(t, dir, "a", 500)
			},
			want: "", tail: 100, log: "cursor is beyond the end of the journal",
		},
		{
			name: "files are there that do not belong to it",
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
			dir, o := damagedJournal(t)
			tc.damage(t, dir)
			var log logBuffer
			o.Logger = log.logger()
			lines := strings.Count(tc.want, "damage(")
			if lines == 0 && tc.log != "" {
				lines = 1
			}
			for i := range 2 { // the second time it must be the same
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
				t.Errorf("want the log to say %q, it is:\n%s", tc.log, log.String())
			}
			// And it goes on.
			j := openDir(t, dir, o)
			next := tc.tail + 1
			mustAppend(t, j, records(next, next+20, smallRecord)...)
			entries := readAll(t, mustConsumer(t, j, "a"))
			if got := summary(entries[len(entries)-21:]); got != fmt.Sprintf("%d-%d", next, next+20) {
				t.Errorf("of the records appended afterwards came %s", got)
			}
		})
	}
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

func TestDamageInASourceAmongOthers(t *testing.T) {
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
	// Whose record it was cannot be told: each source gets a gap record, from
	// where it was to where it is seen next, as far as that is known.
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
		t.Errorf("behind by %d after all was acknowledged", s.Behind)
	}
}
