package file

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hindsight-events/hindsight/internal/quantity"
)

func TestRotationBySize(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		lines float64 // capacity of a file
		batch int
		want  []int // lines in each file
	}{
		{"one batch a file", 5, 5, []int{5, 5, 5, 5}},
		{"batches do not fill the file", 5.9, 4, []int{5, 5, 5, 5}},
		{"a batch is larger than a file", 3.5, 20, []int{3, 3, 3, 3, 3, 3, 2}},
		{"a line is larger than a file", 0.1, 4, slices.Repeat([]int{1}, 20)},
		{"no bound", 0, 4, []int{20}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			c := in(dir)
			c.MaxSize = quantity.Size(test.lines * float64(len(line(11))))
			c.Keep = 0
			s := start(t, c, osFileSystem{}, io.Discard)
			for i := 10; i < 30; i += test.batch {
				send(t, s, i, test.batch)
			}
			if got := readAll(t, dir); got != lines(10, 20) {
				t.Error("the records are not in the order of the file names")
			}
			var got []int
			for _, name := range names(t, dir) {
				got = append(got, strings.Count(read(t, filepath.Join(dir, name)), "\n"))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("lines in each file: %v, want %v", got, test.want)
			}
		})
	}
}

func TestRotationByAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := in(dir)
		c.MaxAge = quantity.Duration(24 * time.Hour)
		want := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := names(t, dir); !slices.Equal(got, want) {
				t.Errorf("%v: got %v, want %v", time.Now(), got, want)
			}
		}
		s := start(t, c, osFileSystem{}, io.Discard)

		time.Sleep(100 * time.Hour)
		send(t, s, 0, 1)
		want("events.jsonl") // an empty file has no age

		time.Sleep(23 * time.Hour)
		send(t, s, 1, 1)
		want("events.jsonl")

		time.Sleep(time.Hour) // without a write
		const first = "events-20000106T040000.000Z.jsonl"
		want(first, "events.jsonl")
		wantOnce(t, read(t, filepath.Join(dir, first)), 2)

		time.Sleep(100 * time.Hour)
		want(first, "events.jsonl")

		send(t, s, 2, 1)
		time.Sleep(20 * time.Hour)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = start(t, c, osFileSystem{}, io.Discard)
		send(t, s, 3, 1)
		time.Sleep(4*time.Hour - time.Second)
		want(first, "events.jsonl")
		time.Sleep(time.Second) // the time before the restart counts
		const second = "events-20000111T080000.000Z.jsonl"
		want(first, second, "events.jsonl")

		send(t, s, 4, 1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour)
		s = start(t, c, osFileSystem{}, io.Discard)
		const third = "events-20000113T080000.000Z.jsonl"
		want(first, second, third, "events.jsonl")
		send(t, s, 5, 1)
		wantOnce(t, readAll(t, dir), 6)
	})
}

func TestRotationByAgeIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := &faultyFS{}
		var log logs
		s := start(t, in(dir), d, &log)
		send(t, s, 0, 1)
		d.failing("rename", 3, syscall.EACCES)
		time.Sleep(24*time.Hour + 150*time.Second)
		synctest.Wait()
		if got := names(t, dir); len(got) != 1 {
			t.Fatalf("got %v, want the file in its place", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := names(t, dir); len(got) != 2 {
			t.Errorf("got %v, want the file to be rotated", got)
		}
		if failed, recovered := log.count("cannot rotate the file"), log.count("can be rotated again"); failed != 1 || recovered != 1 {
			t.Errorf("the failure is logged %d times and the recovery %d times, want once each", failed, recovered)
		}
	})
}

// Names are unique and in order.
func TestNamesWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		taken := filepath.Join(dir, "events-20240229T235959.999Z.jsonl.gz") // in a synctest bubble the clock starts in 2000
		if err := os.WriteFile(taken, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c := in(dir)
		c.MaxSize = quantity.Size(len(line(0)))
		s := start(t, c, osFileSystem{}, io.Discard)
		for i := range 3 {
			send(t, s, i, 1)
		}
		want := []string{filepath.Base(taken), "events-20240301T000000.000Z.jsonl", "events-20240301T000000.001Z.jsonl", "events.jsonl"}
		if got := names(t, dir); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestNamesOfPaths(t *testing.T) {
	t.Parallel()
	now := time.Date(2019, 7, 19, 11, 0, 0, 123_456_789, time.UTC)
	for path, want := range map[string]string{
		"/data/events.jsonl":   "/data/events-20190719T110000.123Z.jsonl",
		"/data/events":         "/data/events-20190719T110000.123Z",
		"/data/.events":        "/data/.events-20190719T110000.123Z",
		"/data.d/a.b.jsonl":    "/data.d/a.b-20190719T110000.123Z.jsonl",
		"/data/events-1.jsonl": "/data/events-1-20190719T110000.123Z.jsonl",
	} {
		a := newArchive(path, Config{}, listing{}, nil)
		if got, err := a.nextName(now); err != nil || got != want {
			t.Errorf("%s is rotated to %s (%v), want %s", path, got, err, want)
		}
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		others := []string{
			"events-1.jsonl", "events-20190719T110000.000Z.txt", "events-20190719T110000Z.jsonl", "events-20190719T110000.000Z-old.jsonl",
			"other-20190719T110000.000Z.jsonl", "events-20191319T110000.000Z.jsonl", "events-20190719T110000.000Z.jsonl.gz.bak",
		}
		rotated := []string{
			"events-19990719T110000.000Z.jsonl", "events-19990719T110001.000Z.jsonl.gz",
			"events-19990719T110002.000Z.jsonl", "events-19990719T110002.000Z.jsonl.gz", // one file
			"events-19990719T110003.000Z.jsonl.gz.tmp", // no file
			"events-19990719T110004.000Z.jsonl",
		}
		for _, name := range slices.Concat(others, rotated) {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want := func(want ...string) {
			t.Helper()
			synctest.Wait()
			want = slices.Concat(want, others, []string{"events.jsonl"})
			slices.Sort(want)
			if got := names(t, dir); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		c := in(dir)
		c.MaxSize, c.Keep = quantity.Size(len(line(0))), 3
		s := start(t, c, osFileSystem{}, io.Discard)
		want("events-19990719T110001.000Z.jsonl.gz", "events-19990719T110002.000Z.jsonl.gz", "events-19990719T110004.000Z.jsonl")
		send(t, s, 0, 3)
		want("events-19990719T110004.000Z.jsonl", "events-20000101T000000.000Z.jsonl", "events-20000101T000000.001Z.jsonl")
		send(t, s, 3, 3)
		want("events-20000101T000000.002Z.jsonl", "events-20000101T000000.003Z.jsonl", "events-20000101T000000.004Z.jsonl")
		if got := read(t, filepath.Join(dir, "events-20000101T000000.004Z.jsonl")); got != line(4) {
			t.Errorf("the newest rotated file contains %q", got)
		}
	})
}

func TestGzip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := in(dir)
		c.MaxSize, c.Gzip = quantity.Size(len(lines(0, 10))), true
		d := &faultyFS{}
		var log logs
		s := start(t, c, d, &log)
		send(t, s, 0, 40)
		synctest.Wait()
		for _, name := range names(t, dir) {
			if strings.HasSuffix(name, ".gz") == (name == "events.jsonl") {
				t.Errorf("unexpected name %s", name)
			}
		}
		wantOnce(t, readAll(t, dir), 40)

		// While the disk is too full to compress a file, the file stays.
		d.set(func(op, path string) error {
			if op == "write" && strings.HasSuffix(path, ".tmp") {
				return syscall.ENOSPC
			}
			return nil
		})
		send(t, s, 40, 20)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		wantOnce(t, readAll(t, dir), 60)
		if n := log.count("cannot compress or remove rotated files"); n != 1 {
			t.Errorf("the failure is logged %d times, want once", n)
		}
		d.set(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, name := range names(t, dir) {
			if strings.HasSuffix(name, ".gz") == (name == "events.jsonl") {
				t.Errorf("unexpected name %s", name)
			}
		}
		wantOnce(t, readAll(t, dir), 60)
	})
}

// listing is a file system with one directory.
type listing struct {
	osFileSystem
	names []string
}

func (l listing) ReadDir(string) ([]string, error) { return l.names, nil }

// A name is of a rotated file only if the sink could have created it.
func FuzzNames(f *testing.F) {
	f.Add("events-20190719T110000.000Z.jsonl")
	f.Add("events-20190719T110000.000Z.jsonl.gz")
	f.Add("events-20190719T110000.000Z.jsonl.gz.tmp")
	f.Add("events-20190719T250000.000Z.jsonl")
	f.Add("events-20190719T110000,000Z.jsonl")
	f.Add("events-.jsonl")
	f.Fuzz(func(t *testing.T, name string) {
		a := newArchive("/data/events.jsonl", Config{}, listing{names: []string{name}}, nil)
		files, err := a.list()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			suffix := ""
			if f.gz {
				suffix = gzSuffix
			} else if f.temp {
				suffix = tmpSuffix
			}
			if got := a.path(f.time) + suffix; got != "/data/"+name {
				t.Errorf("%q was parsed as %q", name, got)
			}
		}
	})
}
