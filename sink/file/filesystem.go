package file

import (
	"io"
	"io/fs"
	"os"
)

// fileSystem has the operations of a file system, so that tests can make them fail. Paths are
// absolute.
type fileSystem interface {
	OpenFile(path string, flag int, perm fs.FileMode) (file, error)
	Lstat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]string, error) // names of regular files, in any order
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
	// BootID returns an ID that changes when the machine restarts; empty: unknown.
	BootID() string
}

type file interface {
	io.ReadWriteCloser
	io.ReaderAt
	io.WriterAt
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// osFileSystem is the file system of the machine.
type osFileSystem struct{}

func (osFileSystem) OpenFile(path string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err // f would be a file that is not nil
	}
	return f, nil
}

func (osFileSystem) ReadDir(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (osFileSystem) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osFileSystem) Lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }
func (osFileSystem) Rename(from, to string) error           { return os.Rename(from, to) }
func (osFileSystem) Remove(path string) error               { return os.Remove(path) }
func (osFileSystem) BootID() string                         { return bootID() }
