package file

import (
	"errors"
	"fmt"
	"os"

	"github.com/hindsight-events/hindsight/internal/flock"
)

// openLocked opens a file, which is made if it is missing, and locks it until it
// is closed, by however the process ends. The file is left behind: removing it
// would let a third process lock another of the same name. On some network
// volumes the lock excludes only processes on the same node.
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
		return nil, fmt.Errorf("lock %s: the file was removed meanwhile", path)
	}
	return f, nil
}

// isAt reports whether the path leads to this open file.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
