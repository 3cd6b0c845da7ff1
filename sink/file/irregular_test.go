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

// The sink opens regular files only, without a lock file for others, even if the file was replaced
// after the configuration was checked.
func TestIrregularFile(t *testing.T) {
	t.Parallel()
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
		t.Errorf("a lock file was created for a pipe: %v", err)
	}
	found := ""
	c := Config{Path: filepath.Dir(path)}
	c.Check(func(key, format string, _ ...any) { found += key + " " })
	if found != "path " {
		t.Errorf("a directory is accepted: %q", found)
	}
}
