package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hindsight-events/hindsight/internal/flock"
)

// Dir keeps files in a directory.
type Dir struct {
	path string
	lock *os.File
}

const lockName = "lock"

// OpenDir creates the directory if it is missing, and locks it until Close or the end of the
// process. On some network volumes the lock excludes only processes on the same node.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("directory %s is not writable: %w", path, err)
	}
	if err := flock.TryLock(lock); err != nil {
		lock.Close()
		if errors.Is(err, flock.ErrLocked) {
			return nil, fmt.Errorf("directory %s is in use by another process", path)
		}
		return nil, fmt.Errorf("lock directory %s: %w", path, err)
	}
	return &Dir{path: path, lock: lock}, nil
}

func (d *Dir) Create(name string) (File, error) {
	return d.open(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
}

func (d *Dir) Open(name string) (File, error) { return d.open(name, os.O_RDWR) }

func (d *Dir) open(name string, flag int) (File, error) {
	f, err := os.OpenFile(filepath.Join(d.path, name), flag, 0o640)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d *Dir) Rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *Dir) Remove(name string) error { return os.Remove(filepath.Join(d.path, name)) }

func (d *Dir) List() ([]string, error) {
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

func (d *Dir) Sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Close unlocks the directory.
func (d *Dir) Close() error { return d.lock.Close() }

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
