package file

import (
	"errors"
	"fmt"
	"os"

	"github.com/hindsight-events/hindsight/internal/flock"
)

// openLocked opens or creates a file and locks it until the file is closed or the process ends. The
// file is never removed: another process could then create and lock a new one of the same name. On
// some network volumes the lock excludes only processes on the same node.
func openLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := flock.TryLock(f); err != nil {
		f.Close()
		if errors.Is(err, flock.ErrLocked) {
			return nil, fmt.Errorf("lock %s: another sink or process writes to this file", path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !isAt(f, path) {
		f.Close()
		return nil, fmt.Errorf("lock %s: another program removed the file", path)
	}
	return f, nil
}

// isAt reports whether an open file is the file at the path.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
