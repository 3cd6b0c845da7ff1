package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (sink.Sink, sinktest.Destination) {
		d := &destination{test: t, dir: t.TempDir()}
		d.disk.partly = 100
		return start(t, in(d.dir), &d.disk, io.Discard), d
	})
}

type destination struct {
	test *testing.T
	dir  string
	disk faultyFS
}

func (d *destination) Received() string { return readAll(d.test, d.dir) }
func (d *destination) Fail(n int)       { d.disk.failing("write", n, syscall.ENOSPC) }
func (d *destination) Break() bool      { return false } // a disk can always recover

func (d *destination) Hang() {
	d.disk.set(func(op, _ string) error {
		if op != "write" {
			return nil
		}
		<-d.test.Context().Done()
		return errors.New("the test has ended")
	})
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	var c Config
	if err := yaml.Unmarshal([]byte("path: /data/events.jsonl\ngzip: true\nmax_age: 1h"), &c); err != nil {
		t.Fatal(err)
	}
	want := Config{Path: "/data/events.jsonl", Format: format.EventRouter, MaxSize: 100 << 20, MaxAge: quantity.Duration(time.Hour), Keep: 10, Gzip: true}
	if c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}

	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"the defaults":          {func(*Config) {}, ""},
		"a relative path":       {func(c *Config) { c.Path = "events.jsonl" }, ""},
		"no bounds":             {func(c *Config) { c.MaxSize, c.MaxAge, c.Keep = 0, 0, 0 }, ""},
		"no path":               {func(c *Config) { c.Path = "" }, "path: is needed: the file to write to"},
		"a directory":           {func(c *Config) { c.Path = "/data/" }, `path: "/data/" names a directory, want a file`},
		"the working directory": {func(c *Config) { c.Path = "." }, `path: "." names a directory, want a file`},
		"a tiny file":           {func(c *Config) { c.MaxSize = 100 }, "max_size: 100B is too small; it must be at least 1KiB, or 0 for no bound"},
		"a short time":          {func(c *Config) { c.MaxAge = 5e6 }, "max_age: 5ms is too short; it must be at least 1s, or 0 for no bound"},
		"fewer than no files":   {func(c *Config) { c.Keep = -1 }, "keep: -1 is not a number of files; 0 keeps all"},
	} {
		t.Run(name, func(t *testing.T) {
			c := DefaultConfig()
			c.Path = "/data/events.jsonl"
			test.change(&c)
			var got []string
			c.Check(func(key, format string, args ...any) { got = append(got, fmt.Sprintf(key+": "+format, args...)) })
			if got := strings.Join(got, "; "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[format.Format]string{
		format.EventRouter: `{"verb":"ADDED","event":{"metadata":{"name":"web-0.7","namespace":"team-a"`,
		format.JSON:        `{"time":"2019-07-19T11:00:07.000001007Z","namespace":"team-a"`,
		format.Logfmt:      `time=2019-07-19T11:00:07.000001007Z namespace=team-a reason=Pulled kind=Pod name=web-0`,
		format.Text:        `2019-07-19T11:00:07.000001007Z team-a Pulled Pod/web-0: record-7.`,
	} {
		t.Run(string(format), func(t *testing.T) {
			c := in(t.TempDir())
			c.Format = format
			send(t, start(t, c, osFileSystem{}, io.Discard), 7, 1)
			if got := read(t, c.Path); !strings.HasPrefix(got, want) {
				t.Errorf("got  %s\nwant %s…", got, want)
			}
		})
	}
}

// After any failure a batch is written in whole lines, once, when it is sent again.
func TestFailures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		op     string
		partly int
		err    error
		reason string
	}{
		{"disk full, nothing written", "write", 0, syscall.ENOSPC, sink.ReasonNoSpace},
		{"disk full within the first line", "write", 10, syscall.ENOSPC, sink.ReasonNoSpace},
		{"disk full after the first line", "write", len(line(3)), syscall.ENOSPC, sink.ReasonNoSpace},
		{"disk full within the second line", "write", len(line(3)) + 10, syscall.ENOSPC, sink.ReasonNoSpace},
		{"disk full after the last line", "write", 1 << 20, syscall.ENOSPC, sink.ReasonNoSpace},
		{"disk full at the sync", "sync", 0, syscall.ENOSPC, sink.ReasonNoSpace},
		{"quota exceeded", "write", 10, syscall.EDQUOT, sink.ReasonNoSpace},
		{"failing disk", "sync", 0, syscall.EIO, sink.ReasonOther},
		{"unreadable directory", "lstat", 0, syscall.EACCES, sink.ReasonOther},
		{"state cannot be written", "write state", 0, syscall.EIO, sink.ReasonOther},
		{"rotation: no room for another file", "open", 0, syscall.ENOSPC, sink.ReasonNoSpace},
		{"rotation: names cannot be synced", "syncdir", 0, syscall.EIO, sink.ReasonOther},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			c := in(dir)
			if strings.HasPrefix(test.name, "rotation") {
				c.MaxSize = quantity.Size(len(lines(0, 4))) // in the middle of the second batch
			}
			d := &faultyFS{partly: test.partly}
			s := start(t, c, d, io.Discard)
			send(t, s, 0, 3)
			d.set(func(op, path string) error {
				if op != test.op {
					return nil
				}
				return &fs.PathError{Op: op, Path: path, Err: test.err}
			})
			for range 2 {
				err := try(t, s, 3, 3)
				var sinkErr *sink.Error
				if !errors.As(err, &sinkErr) || sinkErr.Reason != test.reason || sinkErr.Permanent || !errors.Is(err, test.err) {
					t.Fatalf("got %v, want %v of reason %s", err, test.err, test.reason)
				}
				if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
					t.Errorf("the error is not one line with the path: %v", err)
				}
				numbers(t, readAll(t, dir)) // whole lines
			}
			d.set(nil)
			send(t, s, 3, 3)
			send(t, s, 6, 3)
			wantOnce(t, readAll(t, dir), 9)
		})
	}
}

func TestIncompleteWriteThatCannotBeRemoved(t *testing.T) {
	t.Parallel()
	c := in(t.TempDir())
	d := &faultyFS{partly: len(line(1)) + 10}
	s := start(t, c, d, io.Discard)
	send(t, s, 0, 1)
	d.set(func(op, _ string) error {
		if op == "write" || op == "truncate" {
			return syscall.EIO
		}
		return nil
	})
	for range 3 {
		if err := try(t, s, 1, 3); !errors.Is(err, syscall.EIO) {
			t.Fatalf("got %v, want an I/O error", err)
		}
	}
	d.set(nil)
	send(t, s, 1, 3)
	wantOnce(t, read(t, c.Path), 4)
}

// The sink starts on an unusable path, and uses it after it was repaired.
func TestUnusablePath(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil, repair func(dir string) error
		want          string
	}{
		"directory missing": {
			os.Remove,
			func(dir string) error { return os.Mkdir(dir, 0o700) },
			"directory /dir is missing",
		},
		"directory is a file": {
			func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
			func(dir string) error { return errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)) },
			"not a directory",
		},
		"path is a directory": {
			func(dir string) error { return os.Mkdir(filepath.Join(dir, "events.jsonl"), 0o700) },
			func(dir string) error { return os.Remove(filepath.Join(dir, "events.jsonl")) },
			"open /dir/events.jsonl: it is a directory, want a file",
		},
		"path is a link": {
			func(dir string) error { return os.Symlink("other.jsonl", filepath.Join(dir, "events.jsonl")) },
			func(dir string) error { return os.Remove(filepath.Join(dir, "events.jsonl")) },
			"open /dir/events.jsonl: it is not a regular file",
		},
		"lock file is a directory": {
			func(dir string) error { return os.Mkdir(filepath.Join(dir, "events.jsonl.lock"), 0o700) },
			func(dir string) error { return os.Remove(filepath.Join(dir, "events.jsonl.lock")) },
			"open /dir/events.jsonl.lock: is a directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "dir")
				if err := errors.Join(os.Mkdir(dir, 0o700), test.spoil(dir)); err != nil {
					t.Fatal(err)
				}
				var log logs
				s := start(t, in(dir), osFileSystem{}, &log)
				synctest.Wait()
				if n := log.count("cannot write to the file"); n != 1 {
					t.Errorf("the failure is logged %d times, want once", n)
				}
				for range 3 {
					err := try(t, s, 0, 2)
					if err == nil {
						t.Fatal("a batch was accepted")
					}
					if got := strings.ReplaceAll(err.Error(), dir, "/dir"); !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
						t.Errorf("got %q, want one line with %q", got, test.want)
					}
				}
				time.Sleep(time.Hour)
				if err := test.repair(dir); err != nil {
					t.Fatal(err)
				}
				send(t, s, 0, 2)
				wantOnce(t, readAll(t, dir), 2)
				synctest.Wait()
				if n := log.count("can be written again"); n != 1 {
					t.Errorf("the recovery is logged %d times, want once", n)
				}
			})
		})
	}
}

func TestDirectoryNotWritable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	s := start(t, in(dir), osFileSystem{}, io.Discard)
	if err := try(t, s, 0, 2); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v, want permission denied", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	send(t, s, 0, 2)
	wantOnce(t, readAll(t, dir), 2)
}

func TestFileOfAnotherSink(t *testing.T) {
	t.Parallel()
	c := in(t.TempDir())
	first := start(t, c, osFileSystem{}, io.Discard)
	send(t, first, 0, 1)
	second := start(t, c, osFileSystem{}, io.Discard)
	err := try(t, second, 1, 1)
	if err == nil || !strings.Contains(err.Error(), "another sink or process writes to this file") {
		t.Fatalf("got %v, want an error about the other sink", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	send(t, second, 1, 1)
	wantOnce(t, read(t, c.Path), 2)
}

// A write that outlasts the context is not repeated.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]error{"succeeds late": nil, "fails late": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			c := in(t.TempDir())
			d := &faultyFS{}
			s := start(t, c, d, io.Discard)
			send(t, s, 0, 1)
			result := make(chan error, 1)
			blocked := make(chan struct{})
			var once sync.Once
			d.set(func(op, _ string) (err error) {
				if op == "sync" {
					once.Do(func() {
						close(blocked)
						err = <-result
					})
				}
				return err
			})
			batch := sinktest.Batch(s, sinktest.Records(1, 2))
			for range 2 {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-blocked
					cancel()
				}()
				if err := s.Send(ctx, batch); !errors.Is(err, context.Canceled) {
					t.Fatalf("got %v, want context.Canceled", err)
				}
			}
			result <- fail
			if err := s.Send(t.Context(), batch); !errors.Is(err, fail) {
				t.Fatalf("got %v, want %v", err, fail)
			}
			if fail != nil {
				send(t, s, 1, 2)
			}
			send(t, s, 3, 1)
			wantOnce(t, read(t, c.Path), 4)
		})
	}
}
