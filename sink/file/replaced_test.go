package file

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

// Other programs may change the file in any way. Only lines that they remove are lost.
func TestFileChangedByAnotherProgram(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(path string) error
		kept   bool   // the old file exists
		new    string // beginning of the new file
	}{
		"moved": {func(path string) error { return os.Rename(path, path+".1") }, true, ""},
		"moved, and a new one created": {func(path string) error {
			return firstError(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o600))
		}, true, ""},
		"moved, and replaced by one whose last line has no end": {func(path string) error {
			return firstError(os.Rename(path, path+".1"), os.WriteFile(path, []byte("half a li"), 0o600))
		}, true, "half a li\n"},
		"removed":             {os.Remove, false, ""},
		"truncated":           {func(path string) error { return os.Truncate(path, 0) }, false, ""},
		"truncated in a line": {func(path string) error { return os.Truncate(path, 9) }, false, line(0)[:9] + "\n"},
		"removed with its directory": {func(path string) error {
			return firstError(os.RemoveAll(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700))
		}, false, ""},
		"removed with its lock": {func(path string) error {
			return firstError(os.Remove(path), os.Remove(path+".lock"))
		}, false, ""},
	} {
		for _, written := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s, after %d lines", name, written), func(t *testing.T) {
				c := in(filepath.Join(t.TempDir(), "dir"))
				if err := os.Mkdir(filepath.Dir(c.Path), 0o700); err != nil {
					t.Fatal(err)
				}
				s := start(t, c, osFileSystem{}, io.Discard)
				send(t, s, 0, written)
				send(t, s, written, 1)
				if err := test.change(c.Path); err != nil {
					t.Fatal(err)
				}
				send(t, s, written+1, 3)
				if got := read(t, c.Path); got != test.new+lines(written+1, 3) {
					t.Errorf("the new file contains %q", got)
				}
				if !test.kept {
					return
				}
				if got := read(t, c.Path+".1"); got != lines(0, written+1) {
					t.Errorf("the moved file contains %q", got)
				}
			})
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Lines that were written to a file during its removal are written again.
func TestFileRemovedDuringAWrite(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"write", "sync"} {
		t.Run(op, func(t *testing.T) {
			c := in(t.TempDir())
			d := &faultyFS{}
			s := start(t, c, d, io.Discard)
			send(t, s, 0, 1)
			var removed error
			var once sync.Once
			d.set(func(o, path string) error {
				if o == op {
					once.Do(func() { removed = os.Remove(path) })
				}
				return nil
			})
			if err := try(t, s, 1, 3); err == nil {
				t.Fatal("lines in a removed file were accepted")
			}
			if removed != nil {
				t.Fatal(removed)
			}
			send(t, s, 1, 3)
			if got := read(t, c.Path); got != lines(1, 3) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestFileMovedRepeatedly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := in(dir)
	c.Path = filepath.Join(dir, "zz.jsonl") // sorts after the moved files
	c.MaxSize, c.Keep = quantity.Size(len(lines(0, 50))), 0
	s := start(t, c, osFileSystem{}, io.Discard)
	stop := make(chan struct{})
	var mover sync.WaitGroup
	moved := 0
	mover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Stat(c.Path); err == nil && info.Size() > 0 {
				if os.Rename(c.Path, filepath.Join(dir, fmt.Sprintf("moved-%06d", moved))) == nil {
					moved++
				}
			}
		}
	})
	const records = 1000
	for i := 0; i < records; i += 10 {
		batch := sinktest.Batch(s, sinktest.Records(i, 10))
		for s.Send(t.Context(), batch) != nil {
		}
	}
	close(stop)
	mover.Wait()
	if moved == 0 {
		t.Fatal("the file was never moved")
	}
	var all strings.Builder
	for _, name := range names(t, dir) {
		if strings.HasSuffix(name, ".lock") {
			continue
		}
		all.WriteString(read(t, filepath.Join(dir, name)))
	}
	got := numbers(t, all.String())
	slices.Sort(got) // the files have two kinds of names
	for i := range got {
		if got[i] != i {
			t.Fatalf("got record %d, want %d", got[i], i)
		}
	}
	if len(got) != records {
		t.Errorf("%d records, want %d", len(got), records)
	}
}
