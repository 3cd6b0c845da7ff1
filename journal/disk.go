package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hindsight-events/hindsight/internal/flock"
)

// directory is a storage on disk.
type directory struct {
	path string
	lock *os.File
}

const lockName = "lock"

// openDirectory makes the directory if it is missing, and locks it for as long
// as the process lives. On some network volumes the lock excludes only processes
// on the same node.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("directory %s cannot be written to: %w", path, err)
	}
	if err := flock.TryLock(lock); err != nil {
		lock.Close()
		if errors.Is(err, flock.ErrLocked) {
			return nil, fmt.Errorf("directory %s is in use by another process", path)
		}
		return nil, fmt.Errorf("lock directory %s: %w", path, err)
	}
	return &directory{path: path, lock: lock}, nil
}

func (d *directory) create(name string) (file, error) {
	return d.openFile(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
}

func (d *directory) open(name string) (file, error) {
	return d.openFile(name, os.O_RDWR)
}

func (d *directory) openFile(name string, flag int) (file, error) {
	f, err := os.OpenFile(filepath.Join(d.path, name), flag, 0o640)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d *directory) rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *directory) remove(name string) error {
	return os.Remove(filepath.Join(d.path, name))
}

func (d *directory) list() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type() == fs.FileMode(0) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d *directory) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *directory) close() error { return d.lock.Close() }

// diskFile is a file on disk.
type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
