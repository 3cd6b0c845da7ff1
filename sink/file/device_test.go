//go:build unix

package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is not a regular file is refused, also where it became one after the
// configuration was checked, and no lock is left beside it.
func TestWhatIsNotARegularFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w := writer{path: path, fs: osFileSystem{}}
	err := w.ensureOpen()
	if err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a pipe is opened: %v", err)
	}
	if _, err := os.Stat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a lock beside a pipe: %v", err)
	}
	found := ""
	c := Config{Path: filepath.Dir(path)}
	c.Check(func(key, format string, _ ...any) { found += key + " " })
	if found != "path " {
		t.Errorf("a directory is accepted: %q", found)
	}
}
