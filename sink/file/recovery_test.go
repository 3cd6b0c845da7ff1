package file

import (
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// crashed creates the file and the state after a crash during an append: synced lines and more bytes.
func crashed(t *testing.T, c Config, synced, more string, appending int, boot string) {
	t.Helper()
	if err := os.WriteFile(c.Path, []byte(synced+more), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := osFileSystem{}.OpenFile(c.Path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	before := crc32.ChecksumIEEE([]byte(synced[max(0, len(synced)-fingerprint):]))
	if err := (state{Began: time.Now(), Synced: int64(len(synced)), Appending: appending, Before: before, Boot: boot}).save(lock); err != nil {
		t.Fatal(err)
	}
}

// A crash can leave any part of the last line.
func TestTornLastLine(t *testing.T) {
	t.Parallel()
	whole := lines(0, 2)
	long := strings.Repeat("x", 200_000) // longer than a chunk of lastLineEnd
	check := func(name, synced, more, boot, cut string) {
		t.Helper()
		c := in(t.TempDir())
		crashed(t, c, synced, more, 300_000, boot)
		var log logs
		s := start(t, c, &faultyFS{boot: "this"}, &log)
		kept := strings.TrimSuffix(synced+more, cut)
		first := strings.Count(kept, "\n")
		send(t, s, first, 1)
		if got, want := read(t, c.Path), kept+line(first); got != want {
			t.Fatalf("%s: got %q, want %q", name, got, want)
		}
		logged := log.count("removed a torn last line")
		if cut != "" && logged != 1 || cut == "" && logged != 0 {
			t.Fatalf("%s: the removal is logged %d times", name, logged)
		}
	}
	for n := range len(line(2)) {
		check(fmt.Sprintf("after %d bytes", n), whole, line(2)[:n], "this", line(2)[:n])
	}
	for _, boot := range []string{"this", "another"} { // the process was killed, the machine has crashed
		check("a whole line", whole, line(2), boot, "")
		check("a whole line and a part", whole, line(2)+line(3)[:50], boot, line(3)[:50])
		check("nothing else", "", line(2)[:50], boot, line(2)[:50])
		check("nothing else, long", "", long, boot, long)
		check("long", whole, long, boot, long)
		check("zeros", whole, strings.Repeat("\x00", 4096), boot, strings.Repeat("\x00", 4096))
	}
	// The state is older than some synced lines.
	check("an older state", lines(0, 1), line(1)+line(2)+line(3)[:50], "another", line(3)[:50])
}

// The sink removes nothing that it did not write: it ends the line and appends after it.
func TestLastLineOfAnotherProgramIsKept(t *testing.T) {
	t.Parallel()
	const foreign = `{"items":[1,2,3]}`
	killed := func(t *testing.T, c Config, then func()) {
		t.Helper()
		s := start(t, c, osFileSystem{}, io.Discard)
		send(t, s, 0, 2)
		// A killed process loses its lock and leaves its state.
		s.stop()
		<-s.ended
		lock, err := osFileSystem{}.OpenFile(c.Path+".lock", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		left, ok, err := loadState(lock)
		if left.Closed = false; !ok || err != nil || left.save(lock) != nil {
			t.Fatalf("the state cannot be changed: %v, %v", ok, err)
		}
		then()
	}
	write := func(t *testing.T, path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, c Config)
		want    string
	}{
		"a file that it never wrote": {func(t *testing.T, c Config) { write(t, c.Path, foreign) }, foreign + "\n"},
		"a file of several lines":    {func(t *testing.T, c Config) { write(t, c.Path, "{\n"+foreign) }, "{\n" + foreign + "\n"},
		"a file with the lock file of an older version": {func(t *testing.T, c Config) {
			write(t, c.Path, foreign)
			write(t, c.Path+".lock", "")
		}, foreign + "\n"},
		"a lock file without a state": {func(t *testing.T, c Config) {
			write(t, c.Path, foreign)
			write(t, c.Path+".lock", `{"synced":-1}`)
		}, foreign + "\n"},
		"appended after a close": {func(t *testing.T, c Config) {
			s := start(t, c, osFileSystem{}, io.Discard)
			send(t, s, 0, 2)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			write(t, c.Path, lines(0, 2)+foreign)
		}, lines(0, 2) + foreign + "\n"},
		"appended after a close and a restart of the machine": {func(t *testing.T, c Config) {
			s := start(t, c, &faultyFS{boot: "former"}, io.Discard)
			send(t, s, 0, 2)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			write(t, c.Path, lines(0, 2)+foreign)
		}, lines(0, 2) + foreign + "\n"},
		"appended after a kill": {func(t *testing.T, c Config) {
			killed(t, c, func() { write(t, c.Path, lines(0, 2)+foreign) })
		}, lines(0, 2) + foreign + "\n"},
		"another file after a kill": {func(t *testing.T, c Config) {
			killed(t, c, func() { write(t, c.Path, foreign) })
		}, foreign + "\n"},
		"another, longer file after a kill during an append": {func(t *testing.T, c Config) {
			crashed(t, c, lines(0, 1), "", 100_000, bootID())
			write(t, c.Path, strings.Repeat("x", 5000)+"\n"+foreign)
		}, strings.Repeat("x", 5000) + "\n" + foreign + "\n"},
		"another, longer file after a crash of the machine": {func(t *testing.T, c Config) {
			crashed(t, c, lines(0, 1), "", 100_000, "former")
			write(t, c.Path, strings.Repeat("x", 5000)+"\n"+foreign)
		}, strings.Repeat("x", 5000) + "\n" + foreign + "\n"},
		"more bytes than the append": {func(t *testing.T, c Config) {
			crashed(t, c, lines(0, 1), line(1)[:50]+strings.Repeat("y", 100), 100, bootID())
		}, lines(0, 1) + line(1)[:50] + strings.Repeat("y", 100) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := in(t.TempDir())
			test.prepare(t, c)
			var log logs
			s := start(t, c, osFileSystem{}, &log)
			send(t, s, 5, 2)
			if got, want := read(t, c.Path), test.want+lines(5, 2); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if n := log.count("added a newline"); n != 1 {
				t.Errorf("the newline is logged %d times, want once", n)
			}
		})
	}
}

func TestLinesOfAnotherProgramAfterATornLineAreKept(t *testing.T) {
	t.Parallel()
	c := in(t.TempDir())
	d := &faultyFS{partly: 10}
	s := start(t, c, d, io.Discard)
	send(t, s, 0, 1)
	d.set(func(op, _ string) error {
		if op == "write" || op == "truncate" {
			return syscall.EIO
		}
		return nil
	})
	if try(t, s, 1, 1) == nil {
		t.Fatal("a batch was accepted although it was not written")
	}
	d.set(nil)
	f, err := os.OpenFile(c.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	foreign := strings.Repeat("z", 1000)
	if _, err := f.WriteString(foreign); err != nil {
		t.Fatal(err)
	}
	f.Close()
	send(t, s, 1, 1)
	if got, want := read(t, c.Path), line(0)+line(1)[:10]+foreign+"\n"+line(1); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTornLastLineIsRemovedAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := in(t.TempDir())
		crashed(t, c, line(0), line(1)[:9], len(line(1)), bootID())
		start(t, c, osFileSystem{}, io.Discard)
		synctest.Wait()
		wantOnce(t, read(t, c.Path), 1)
	})
}

// A file that cannot be rotated grows by whole batches, and is rotated later.
func TestFileThatCannotBeRotatedGrows(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		op  string
		err error
	}{{"rename", syscall.EACCES}, {"rename", syscall.EXDEV}, {"readdir", syscall.EIO}} {
		t.Run(test.op+", "+test.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				c := in(dir)
				c.MaxSize, c.Keep = 1<<10, 0
				c.MaxAge = 0
				d := &faultyFS{}
				var log logs
				s := start(t, c, d, &log)
				send(t, s, 0, 2)
				syncs := 0
				d.set(func(op, path string) error {
					if op == "sync" && path == c.Path {
						syncs++
					}
					if op == test.op {
						return test.err
					}
					return nil
				})
				for i := 2; i < 202; i += 20 {
					send(t, s, i, 20)
				}
				if syncs > 30 {
					t.Errorf("%d syncs of the file for 10 batches", syncs)
				}
				time.Sleep(90 * time.Second)
				send(t, s, 202, 20)
				if n := log.count("cannot rotate the file"); n != 1 {
					t.Errorf("the failure is logged %d times, want once", n)
				}
				wantOnce(t, read(t, c.Path), 222)

				d.set(nil)
				time.Sleep(90 * time.Second)
				send(t, s, 222, 2)
				if n := log.count("can be rotated again"); n != 1 {
					t.Errorf("the recovery is logged %d times, want once", n)
				}
				if n := len(names(t, dir)); n < 2 {
					t.Errorf("%d files, want the file to be rotated", n)
				}
				wantOnce(t, readAll(t, dir), 224)
			})
		})
	}
}
