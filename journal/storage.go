package journal

import "io"

// storage is where the files of a journal are kept: a directory, or memory.
// Its methods may be called from any goroutine.
type storage interface {
	// create makes an empty file, replacing what has its name.
	create(name string) (file, error)
	// open opens a file for reading and writing. If there is none, the error
	// is fs.ErrNotExist.
	open(name string) (file, error)
	// rename gives a file another name, replacing what has it.
	rename(from, to string) error
	remove(name string) error
	list() ([]string, error)
	// sync makes creations, renames and removals durable.
	sync() error
	close() error
}

// file is one file of a storage. Reading may go on beside writing.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes what was written durable. After an error it is unknown what
	// is, and calling it again would not tell: the kernel may have dropped the
	// pages and forgotten about it (https://lwn.net/Articles/752063/).
	Sync() error
}

// createSynced makes a file with the given content. It appears under its name
// whole and durable, or not at all.
func createSynced(s storage, name string, content []byte) (file, error) {
	temp := name + tempSuffix
	f, err := s.create(temp)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.rename(temp, name)
	}
	if err == nil {
		err = s.sync()
	}
	if err != nil {
		f.Close()
		s.remove(temp)
		return nil, err
	}
	return f, nil
}

const tempSuffix = ".tmp"
