package file

import (
	"io"
	"io/fs"
	"os"
)

// disk is what is asked of a file system, so that tests can let it fail.
// Paths are absolute.
type disk interface {
	OpenFile(path string, flag int, perm fs.FileMode) (file, error)
	Lstat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]string, error) // names of regular files, in any order
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
	// BootID is the same for as long as the machine runs, and another after a
	// restart of it; empty: not known.
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

// osDisk is the file system of the machine.
type osDisk struct{}

func (osDisk) OpenFile(path string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err // not a file that is nil
	}
	return f, nil
}

func (osDisk) ReadDir(path string) ([]string, error) {
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

func (osDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osDisk) Lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }
func (osDisk) Rename(from, to string) error           { return os.Rename(from, to) }
func (osDisk) Remove(path string) error               { return os.Remove(path) }
func (osDisk) BootID() string                         { return bootID() }
