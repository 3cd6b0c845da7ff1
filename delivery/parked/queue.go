package parked

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Queue holds the parked records of one stream. It is safe for concurrent use.
type Queue struct {
	store *Store
	name  string
	path  string // empty: in memory

	mu       sync.Mutex // guards the fields below
	created  bool       // the file exists
	memory   memory     // the file, if path is empty
	unsynced bool       // a crash may remove the file
	begin    int64      // offset of the first frame
	head     int64      // offset of the oldest record that was not dropped
	tail     int64      // end of the newest record
	base     int64      // head and tail minus their offsets in the file, after it was compacted
	records  int
}

// Record is a parked record.
type Record struct {
	Data     []byte
	ParkedAt time.Time // to the second
	end      int64     // offset of its end
}

// Name returns the name of the stream.
func (q *Queue) Name() string { return q.name }

// Len returns the number of records.
func (q *Queue) Len() int {
	n, _ := q.size()
	return n
}

// Bytes returns the size of the records with their framing.
func (q *Queue) Bytes() int64 {
	_, b := q.size()
	return b
}

func (q *Queue) size() (records int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records, q.tail - q.head
}

// withFile calls do with the file. It is open only for that time, because there may be
// more streams than a process may have open files. q.mu is held.
func (q *Queue) withFile(do func(file) error) error {
	if q.path == "" {
		return do(&q.memory)
	}
	f, err := os.OpenFile(q.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// fileRemoved reports whether another process has removed the file. q.mu is held.
func (q *Queue) fileRemoved() bool {
	if q.path == "" {
		return false
	}
	_, err := os.Lstat(q.path)
	return errors.Is(err, fs.ErrNotExist)
}

// Append adds records; ends are their ends in data. They are synced to disk, or in
// memory, when it returns nil; after an error, none of them was added.
func (q *Queue) Append(data []byte, ends []int, now time.Time) error {
	if err := q.append(data, ends, now); err != nil {
		return fmt.Errorf("park records: %w", err)
	}
	return nil
}

func (q *Queue) append(data []byte, ends []int, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.records == 0 && q.fileRemoved() {
		q.created = false
	}
	if !q.created {
		if err := q.create(); err != nil {
			return err
		}
	}
	if q.unsynced {
		if err := syncDir(filepath.Dir(q.path)); err != nil {
			return err
		}
		q.unsynced = false
	}
	frames := make([]byte, 0, len(data)+frameHeader*len(ends))
	start := 0
	for _, end := range ends {
		frames = appendFrame(frames, data[start:end], now)
		start = end
	}
	err := q.withFile(func(f file) error {
		_, err := f.WriteAt(frames, q.tail-q.base)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			// If this fails too, the next Append overwrites the frames. Frames that a
			// restart finds complete are records that the journal still has.
			return errors.Join(err, f.Truncate(q.tail-q.base))
		}
		return nil
	})
	if err != nil {
		return err
	}
	q.tail += int64(len(frames))
	q.records += len(ends)
	return nil
}

// create creates the file. q.mu is held.
func (q *Queue) create() error {
	header := appendHeader(nil, q.name)
	if _, err := q.replace(header); err != nil {
		return err
	}
	q.created = true
	q.begin = int64(len(header))
	q.base = 0
	q.head, q.tail, q.records = q.begin, q.begin, 0
	return nil
}

// replace replaces the content of the file; see replaceFile. q.mu is held.
func (q *Queue) replace(content ...[]byte) (replaced bool, err error) {
	if q.path == "" {
		q.memory.b = slices.Concat(content...)
		return true, nil
	}
	return replaceFile(q.path, content...)
}

// Peek returns the oldest records: at least atLeast, if there are so many, and more while
// they have fewer bytes together. It returns ErrDamaged if the oldest record is damaged,
// and another error if it cannot be read at present.
func (q *Queue) Peek(atLeast, bytes int) (records []Record, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == q.tail {
		return nil, nil
	}
	at, sum := q.head, 0
	err = q.withFile(func(f file) error {
		for at < q.tail && (len(records) < atLeast || sum < bytes) {
			data, parkedAt, err := readFrame(f, at-q.base, q.tail-q.base)
			if err != nil {
				return err
			}
			at += int64(frameHeader + len(data))
			sum += len(data)
			records = append(records, Record{Data: data, ParkedAt: parkedAt, end: at})
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(ErrDamaged, err)
	}
	if err != nil && len(records) == 0 {
		return nil, fmt.Errorf("read parked records: %w", err)
	}
	return records, nil
}

// Drop removes records that Peek has returned, unless they were removed before.
func (q *Queue) Drop(records []Record) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range records {
		if r.end > q.head {
			q.head = r.end
			q.records--
		}
	}
	if q.head == q.tail {
		q.records = 0
	}
	return q.saveHead()
}

// DropAll removes all records, including damaged ones, and returns their number.
func (q *Queue) DropAll() (records int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	records, q.records = q.records, 0
	q.head = q.tail
	if q.fileRemoved() {
		return records, nil
	}
	return records, q.saveHead()
}

// saveHead writes the head to the file, or compacts it. q.mu is held.
func (q *Queue) saveHead() error {
	if !q.created {
		return nil
	}
	if dropped := q.head - q.base - q.begin; q.head < q.tail && dropped > compactFrom && dropped > q.tail-q.head {
		return q.compact()
	}
	var b [8 + 4]byte
	putHead(b[:], q.head-q.base)
	err := q.withFile(func(f file) error {
		_, err := f.WriteAt(b[:], int64(headAt))
		return err
	})
	if err != nil {
		return fmt.Errorf("drop parked records: %w", err)
	}
	return nil
}

// compact rewrites the file without the dropped records. q.mu is held.
func (q *Queue) compact() error {
	rest := make([]byte, q.tail-q.head)
	err := q.withFile(func(f file) error {
		_, err := f.ReadAt(rest, q.head-q.base)
		return err
	})
	replaced := false
	if err == nil {
		replaced, err = q.replace(appendHeader(nil, q.name), rest)
	}
	if replaced {
		q.base = q.head - q.begin
		q.unsynced = err != nil
	}
	if err != nil {
		return fmt.Errorf("drop parked records: %w", err)
	}
	return nil
}

// Remove removes the queue and its file if it is empty, and reports whether it was.
func (q *Queue) Remove() (empty bool, err error) {
	q.mu.Lock()
	if q.records > 0 {
		q.mu.Unlock()
		return false, nil
	}
	if q.created {
		q.created, q.memory = false, memory{}
		q.head, q.tail, q.base = 0, 0, 0
		if q.path != "" {
			if err = os.Remove(q.path); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
	}
	q.mu.Unlock()
	q.store.remove(q)
	if err != nil {
		return true, fmt.Errorf("remove parked records: %w", err)
	}
	return true, nil
}

// openQueue opens the queue of a file. It truncates the file at the first damaged or
// incomplete frame, and returns the number of bytes removed.
func openQueue(path string) (q *Queue, truncated int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	q, err = readHeader(f, info.Size())
	if err != nil {
		return nil, 0, err
	}
	q.path = path
	at := q.head
	for at < info.Size() {
		data, _, err := readFrame(f, at, info.Size())
		if errors.Is(err, ErrDamaged) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		at += int64(frameHeader + len(data))
		q.records++
	}
	q.tail = at
	if truncated = info.Size() - at; truncated > 0 {
		if err := f.Truncate(at); err != nil {
			return nil, 0, err
		}
	}
	return q, truncated, nil
}
