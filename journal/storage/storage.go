// Package storage is the stored form of a journal: the files, how records and cursors are laid
// out in them, and how they are recovered after a crash.
//
// A journal is kept in a directory (Dir) or in memory (Memory), as these files:
//
//	<first offset, 20 digits>.log     a segment
//	<consumer, path-escaped>.cursor   a cursor
//	lock                              locked with flock while the journal is open
//	*.tmp                             an unfinished file; recovery removes it
//
// Integers are little-endian, checksums are CRC32C. A segment is a header and frames. A cursor
// file is two slots of equal size. A header and a slot are blocks:
//
//	magic     4  "HSL1" a segment, "HSC1" a cursor; the last character is the format's version
//	length    4  of the content
//	checksum  4  of the magic, the length and the content
//	content      of a segment: JSON, the offset of its first record and the positions of all
//	             sources before it, so that positions outlive their records
//	             of a cursor: the number of the write (8), then the cursor as JSON
//
// A frame is a record, or a position, which has no offset of its own:
//
//	magic     4  "HSr1" a record, "HSp1" a position
//	length    4  of the payload
//	offset    8  of the record, or of the record after the position
//	time      8  of the append, in nanoseconds since 1970
//	index     4  among the frames that were synced together, from 0
//	checksum  4  of the payload
//	checksum  4  of the 32 bytes before it
//	payload      the record as encoded by event.Record
//
// # Crashes
//
// Segments and cursor files are created under a temporary name, synced and renamed: they exist
// whole or not at all.
//
// Frames are appended in groups; a group is synced as a whole and never split between segments.
// A loss of power may leave any part of the last group. Recovery truncates it before the first
// hole, so that no record follows a missing one. A hole before a frame of index 0 is older than
// the last sync: that is damage, and stays.
//
// After a failed sync the content of the file is unknown. The segment ends at its last synced
// frame and the group is written to a new segment. Readers skip leftover frames, whose
// offsets belong to the next segment.
//
// A cursor is written to one slot until that is synced, then to the other, so that the last
// synced cursor survives any torn write. A write allocates nothing and succeeds on a full disk.
//
// # Damage
//
// The head of a frame has its own checksum, so that a length is trusted only if it was written.
// Readers search for the next intact frame; the missing offsets show the loss. Blocks that
// cannot be read count as damaged after some attempts. A damaged segment header costs nothing
// but the positions in it, a damaged cursor makes its consumer start at the oldest record.
package storage

import "io"

// FS is where the files of a journal are kept. It is safe for concurrent use.
type FS interface {
	// Create creates an empty file, or truncates the existing one.
	Create(name string) (File, error)
	// Open opens a file for reading and writing; the error of a missing one is fs.ErrNotExist.
	Open(name string) (File, error)
	// Rename replaces an existing file of the new name.
	Rename(from, to string) error
	Remove(name string) error
	List() ([]string, error)
	// Sync makes creations, renames and removals durable.
	Sync() error
	Close() error
}

// File is one file of an FS. It may be read while it is written.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes writes durable. After an error the content on disk is unknown, and a second
	// call does not help: the kernel may have dropped the pages
	// (https://lwn.net/Articles/752063/).
	Sync() error
}

const tempSuffix = ".tmp"

// createSynced creates a file that is durable and whole once it has its name.
func createSynced(fs FS, name string, content []byte) (File, error) {
	temp := name + tempSuffix
	f, err := fs.Create(temp)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.Rename(temp, name)
	}
	if err == nil {
		err = fs.Sync()
	}
	if err != nil {
		f.Close()
		_ = fs.Remove(temp) // recovery removes it too
		return nil, err
	}
	return f, nil
}
