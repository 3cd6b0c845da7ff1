package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/nightly"
	"github.com/hindsight-events/hindsight/test/wait"
)

// crashingFS crashes at one operation, and knows the data that a crash of the machine may lose.
type crashingFS struct {
	faultyFS
	left  atomic.Int64 // operations before the crash; below 0 after it
	stash string       // directory of the removed files

	model       sync.Mutex        // guards the fields below
	synced      map[string]int64  // bytes by path
	undo        []func()          // undoes the changes of names since they were synced
	overwritten map[string][]byte // former content of files with unsynced overwrites
}

var errCrash = errors.New("crash")

func newCrashingFS(left, partly int, stash string) *crashingFS {
	d := &crashingFS{stash: stash, synced: map[string]int64{}, overwritten: map[string][]byte{}}
	d.partly, d.boot = partly, "first"
	d.left.Store(int64(left))
	d.faultyFS.before = func(string, string) error {
		if d.left.Add(-1) < 0 {
			return errCrash
		}
		return nil
	}
	return d
}

func (d *crashingFS) crashed() bool { return d.left.Load() < 0 }

// lose undoes unsynced changes: all but some bytes of data, all names, and all overwrites.
func (d *crashingFS) lose(data, names, inPlace bool) {
	for path, content := range d.overwritten {
		if inPlace {
			_ = os.WriteFile(path, content, 0o600)
		}
	}
	for path, synced := range d.synced {
		info, err := os.Stat(path)
		if data && !strings.HasSuffix(path, ".lock") && err == nil && info.Size() > synced {
			_ = os.Truncate(path, synced+(info.Size()-synced)/3)
		}
	}
	for i := len(d.undo) - 1; names && i >= 0; i-- {
		d.undo[i]()
	}
}

func (d *crashingFS) OpenFile(path string, flag int, perm fs.FileMode) (file, error) {
	d.model.Lock()
	defer d.model.Unlock()
	info, err := os.Stat(path)
	f, openErr := d.faultyFS.OpenFile(path, flag, perm)
	if openErr != nil {
		return nil, openErr
	}
	if err != nil {
		d.undo = append(d.undo, func() { _ = os.Remove(path) })
		d.synced[path] = 0
	} else if _, known := d.synced[path]; !known {
		d.synced[path] = info.Size()
	}
	return &crashingFile{f, d, path}, nil
}

func (d *crashingFS) Rename(from, to string) error {
	d.model.Lock()
	defer d.model.Unlock()
	if err := d.faultyFS.Rename(from, to); err != nil {
		return err
	}
	d.moved(from, to)
	return nil
}

func (d *crashingFS) Remove(path string) error {
	d.model.Lock()
	defer d.model.Unlock()
	stashed := filepath.Join(d.stash, strconv.Itoa(len(d.undo)))
	_ = os.Link(path, stashed)
	if err := d.faultyFS.Remove(path); err != nil {
		_ = os.Remove(stashed)
		return err
	}
	d.moved(path, stashed)
	return nil
}

func (d *crashingFS) moved(from, to string) {
	d.synced[to] = d.synced[from]
	delete(d.synced, from)
	d.undo = append(d.undo, func() { _ = os.Rename(to, from) })
}

func (d *crashingFS) SyncDir(path string) error {
	d.model.Lock()
	defer d.model.Unlock()
	err := d.faultyFS.SyncDir(path)
	if err == nil {
		d.undo = nil
	}
	return err
}

type crashingFile struct {
	file
	disk *crashingFS
	path string
}

func (f *crashingFile) WriteAt(b []byte, at int64) (int, error) {
	f.disk.model.Lock()
	defer f.disk.model.Unlock()
	if _, known := f.disk.overwritten[f.path]; !known {
		f.disk.overwritten[f.path], _ = os.ReadFile(f.path)
	}
	return f.file.WriteAt(b, at)
}

func (f *crashingFile) Sync() error {
	f.disk.model.Lock()
	defer f.disk.model.Unlock()
	err := f.file.Sync()
	if err == nil {
		delete(f.disk.overwritten, f.path)
	}
	if info, statErr := f.file.Stat(); err == nil && statErr == nil {
		f.disk.synced[f.path] = info.Size()
	}
	return err
}

func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	const batches, size = 4, 4
	torn := len(line(0)) + len(line(0))/2
	for _, loss := range []struct {
		name                 string
		partly               int // bytes of the last write
		boot                 string
		data, names, inPlace bool
	}{
		{name: "the process is killed", boot: "first"},
		{name: "the process is killed during a write", boot: "first", partly: torn},
		{name: "the machine loses names", boot: "second", names: true},
		{name: "the machine loses data", boot: "second", data: true},
		{name: "the machine loses data and the state", boot: "second", data: true, inPlace: true},
		{name: "the machine loses the state", boot: "second", partly: torn, inPlace: true},
		{name: "the machine loses all", boot: "second", partly: torn, data: true, names: true, inPlace: true},
	} {
		t.Run(loss.name, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for crashed := true; crashed; steps += nightly.Size(3, 1) {
				synctest.Test(t, func(t *testing.T) {
					dir := t.TempDir()
					d := newCrashingFS(steps, loss.partly, t.TempDir())
					// Some rotations are between batches, some within one.
					c := in(dir)
					c.MaxSize, c.Keep, c.Gzip = quantity.Size(len(lines(0, 5))), 0, true
					sent := sendBatches(t, start(t, c, d, io.Discard), 0, batches, size)
					crashed = d.crashed()
					d.lose(loss.data, loss.names, loss.inPlace)
					if !crashed && sent != batches {
						t.Fatalf("%d batches sent without a crash, want %d", sent, batches)
					}

					if sent := sendBatches(t, start(t, c, &faultyFS{boot: loss.boot}, io.Discard), sent, batches, size); sent != batches {
						t.Fatalf("step %d: only %d batches were sent after the crash, want %d", steps, sent, batches)
					}
					if again := wantAll(t, readAll(t, dir), batches*size); again > size {
						t.Errorf("step %d: %d records were written again, want at most the %d of a batch", steps, again, size)
					}
					for _, name := range names(t, dir) {
						if name != "events.jsonl" && !strings.HasSuffix(name, ".gz") {
							t.Errorf("step %d: %s was left behind", steps, name)
						}
					}
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d steps", steps)
			if steps < 50 {
				t.Errorf("only %d steps were tested", steps)
			}
		})
	}
}

// sendBatches sends batches until one fails, waits for the goroutines after each, and closes the sink.
// It returns the number of the next batch.
func sendBatches(t *testing.T, s *Sink, from, to, size int) int {
	t.Helper()
	synctest.Wait()
	for from < to && try(t, s, from*size, size) == nil {
		from++
		synctest.Wait()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return from
}

const killed = "HINDSIGHT_TEST_KILLED"

func TestMain(m *testing.M) {
	if first, err := strconv.Atoi(os.Getenv(killed)); err == nil {
		writeUntilKilled(first)
	}
	os.Exit(m.Run())
}

const killedBatch = 20

func killedConfig(dir string) Config {
	c := in(dir)
	c.MaxSize, c.Keep, c.Gzip = 64<<10, 0, true
	return c
}

// writeUntilKilled writes batches to the working directory and prints the number of accepted records.
func writeUntilKilled(number int) {
	s, err := New(killedConfig("."), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for ; ; number += killedBatch {
		if err := s.Send(context.Background(), sinktest.Batch(s, sinktest.Records(number, killedBatch))); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(number + killedBatch)
	}
}

// This test is not parallel: between fork and exec, a child process has the locks of other tests.
func TestKilledUnderLoad(t *testing.T) {
	dir := t.TempDir()
	const rounds = 12
	accepted := 0
	for round := range rounds {
		child := exec.Command(os.Args[0])
		child.Dir = dir
		child.Env = append(os.Environ(), fmt.Sprintf("%s=%d", killed, accepted))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		remaining := 1 + rand.IntN(20) // batches until it is killed
		for output := bufio.NewScanner(out); output.Scan(); {
			n, err := strconv.Atoi(output.Text())
			if err != nil {
				t.Errorf("round %d: %s", round, output.Text())
				break
			}
			accepted = n
			if remaining--; remaining == 0 {
				_ = child.Process.Kill() // the loop reads the rest of its output
			}
		}
		_ = child.Wait()
	}
	s := start(t, killedConfig(dir), osFileSystem{}, io.Discard)
	send(t, s, accepted, killedBatch)
	wait.Until(t, "all rotated files have their compressed form only", func() bool {
		return !slices.ContainsFunc(names(t, dir), func(name string) bool {
			return name != "events.jsonl" && !strings.HasSuffix(name, ".gz")
		})
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := wantAll(t, readAll(t, dir), accepted+killedBatch)
	if again > rounds*killedBatch {
		t.Errorf("%d records were written again after %d kills, want at most a batch of %d each", again, rounds, killedBatch)
	}
	if files := len(names(t, dir)); files < 3 {
		t.Errorf("%d files: rotation was not tested", files)
	}
	t.Logf("%d records accepted, %d written again", accepted, again)
}
