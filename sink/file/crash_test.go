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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/nightly"
)

// crashingDisk stops at one operation, as a process or a machine would, and
// knows what a machine may have lost by then.
type crashingDisk struct {
	faultyDisk
	left  atomic.Int64 // operations before the crash; below 0 after it
	stash string       // a directory for what was removed

	model       sync.Mutex        // held by operations on what follows
	synced      map[string]int64  // bytes by path
	undo        []func()          // of the names, since they were synced
	overwritten map[string][]byte // content of files that were written in place and not synced since
}

var errCrash = errors.New("crash")

func newCrashingDisk(left, partly int, stash string) *crashingDisk {
	d := &crashingDisk{stash: stash, synced: map[string]int64{}, overwritten: map[string][]byte{}}
	d.partly, d.boot = partly, "first"
	d.left.Store(int64(left))
	d.faultyDisk.before = func(string, string) error {
		if d.left.Add(-1) < 0 {
			return errCrash
		}
		return nil
	}
	return d
}

func (d *crashingDisk) crashed() bool { return d.left.Load() < 0 }

// lose takes back what was not synced: of data all but some bytes, of names all,
// and all that was written in place.
func (d *crashingDisk) lose(data, names, inPlace bool) {
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

func (d *crashingDisk) OpenFile(path string, flag int, perm fs.FileMode) (file, error) {
	d.model.Lock()
	defer d.model.Unlock()
	info, err := os.Stat(path)
	f, openErr := d.faultyDisk.OpenFile(path, flag, perm)
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

func (d *crashingDisk) Rename(from, to string) error {
	d.model.Lock()
	defer d.model.Unlock()
	if err := d.faultyDisk.Rename(from, to); err != nil {
		return err
	}
	d.moved(from, to)
	return nil
}

func (d *crashingDisk) Remove(path string) error {
	d.model.Lock()
	defer d.model.Unlock()
	kept := filepath.Join(d.stash, strconv.Itoa(len(d.undo)))
	_ = os.Link(path, kept)
	if err := d.faultyDisk.Remove(path); err != nil {
		_ = os.Remove(kept)
		return err
	}
	d.moved(path, kept)
	return nil
}

func (d *crashingDisk) moved(from, to string) {
	d.synced[to] = d.synced[from]
	delete(d.synced, from)
	d.undo = append(d.undo, func() { _ = os.Rename(to, from) })
}

func (d *crashingDisk) SyncDir(path string) error {
	d.model.Lock()
	defer d.model.Unlock()
	err := d.faultyDisk.SyncDir(path)
	if err == nil {
		d.undo = nil
	}
	return err
}

type crashingFile struct {
	file
	disk *crashingDisk
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
	const batches, size = 4, 4
	torn := len(line(0)) + len(line(0))/2
	for _, loss := range []struct {
		name                 string
		partly               int // bytes that the last write had written
		boot                 string
		data, names, inPlace bool
	}{
		{name: "the process is killed", boot: "first"},
		{name: "the process is killed while it writes", boot: "first", partly: torn},
		{name: "the machine loses names", boot: "second", names: true},
		{name: "the machine loses data", boot: "second", data: true},
		{name: "the machine loses data and the state", boot: "second", data: true, inPlace: true},
		{name: "the machine loses the state", boot: "second", partly: torn, inPlace: true},
		{name: "the machine loses all", boot: "second", partly: torn, data: true, names: true, inPlace: true},
	} {
		t.Run(loss.name, func(t *testing.T) {
			steps := 0
			for crashed := true; crashed; steps += nightly.Size(3, 1) {
				synctest.Test(t, func(t *testing.T) {
					dir := t.TempDir()
					d := newCrashingDisk(steps, loss.partly, t.TempDir())
					// Some rotations fall between batches, some into one.
					c := in(dir)
					c.MaxSize, c.Keep, c.Gzip = quantity.Size(len(lines(0, 5))), 0, true
					sent := sendBatches(t, start(t, c, d, io.Discard), 0, batches, size)
					crashed = d.crashed()
					d.lose(loss.data, loss.names, loss.inPlace)
					if !crashed && sent != batches {
						t.Fatalf("%d batches sent without a crash, want %d", sent, batches)
					}

					if sent := sendBatches(t, start(t, c, &faultyDisk{boot: loss.boot}, io.Discard), sent, batches, size); sent != batches {
						t.Fatalf("step %d: after the crash only %d batches were sent, want %d", steps, sent, batches)
					}
					if again := wantAll(t, readAll(t, dir), batches*size); again > size {
						t.Errorf("step %d: %d records came again, want at most the %d of a batch", steps, again, size)
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
				t.Errorf("only %d steps: most of what is to be tested was not", steps)
			}
		})
	}
}

// sendBatches sends batches until one fails, lets each settle, closes the sink,
// and returns how many batches there are now.
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

// writeUntilKilled writes batches into the working directory and says which were
// accepted.
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
		patience := 1 + rand.IntN(20) // batches
		for said := bufio.NewScanner(out); said.Scan(); {
			n, err := strconv.Atoi(said.Text())
			if err != nil {
				t.Errorf("round %d: %s", round, said.Text())
				break
			}
			accepted = n
			if patience--; patience == 0 {
				_ = child.Process.Kill() // what it still said is read
			}
		}
		_ = child.Wait()
	}
	s := start(t, killedConfig(dir), osFileSystem{}, io.Discard)
	send(t, s, accepted, killedBatch)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := wantAll(t, readAll(t, dir), accepted+killedBatch)
	if again > rounds*killedBatch {
		t.Errorf("%d records came again after %d kills, want at most a batch of %d each", again, rounds, killedBatch)
	}
	if files := len(names(t, dir)); files < 3 {
		t.Errorf("%d files: rotation was not tested", files)
	}
	t.Logf("%d records accepted, %d came again", accepted, again)
}
