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

// Queue holds the records of one stream. It is safe for concurrent use.
type Queue struct {
	store *Store
	name  string
	path  string // empty: in memory

	mu       sync.Mutex // guards what follows
	made     bool       // there is a file
	memory   memory     // if path is empty
	unsynced bool       // the name of the file may not survive a crash
	begin    int64      // where the first frame is
	head     int64      // where the oldest record is that was not dropped
	tail     int64      // behind the newest
	base     int64      // by how much offsets in the file are smaller than head and tail, after it was rewritten
	records  int
}

// Record is a parked record.
type Record struct {
	Data     []byte
	ParkedAt time.Time // when, to the second
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

// with calls do with the file, which is open for that long only: there may be more
// streams than a process may have files open. q.mu is held.
func (q *Queue) with(do func(file) error) error {
	if q.path == "" {
		return do(&q.memory)
	}
	f, err := os.OpenFile(q.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// gone reports whether somebody has removed the file. q.mu is held.
func (q *Queue) gone() bool {
	if q.path == "" {
		return false
	}
	_, err := os.Lstat(q.path)
	return errors.Is(err, fs.ErrNotExist)
}

// Append adds records: data, in which the i-th ends at ends[i]. It returns nil once
// they are synced to disk, or in memory; after an error, none of them is kept.
func (q *Queue) Append(data []byte, ends []int, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.records == 0 && q.gone() {
		q.made = false
	}
	if !q.made {
		if err := q.create(); err != nil {
			return fmt.Errorf("park records: %w", err)
		}
	}
	if q.unsynced {
		if err := syncDir(filepath.Dir(q.path)); err != nil {
			return fmt.Errorf("park records: %w", err)
		}
		q.unsynced = false
	}
	frames := make([]byte, 0, len(data)+frameHeader*len(ends))
	from := 0
	for _, end := range ends {
		frames = appendFrame(frames, data[from:end], now)
		from = end
	}
	err := q.with(func(f file) error {
		_, err := f.WriteAt(frames, q.tail-q.base)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			// What was written of it is overwritten by the next Append, or is
			// unfinished, or was acknowledged by nobody.
			return errors.Join(err, f.Truncate(q.tail-q.base))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("park records: %w", err)
	}
	q.tail += int64(len(frames))
	q.records += len(ends)
	return nil
}

// create makes the file. q.mu is held.
func (q *Queue) create() error {
	header := appendHeader(nil, q.name)
	if _, err := q.replace(header); err != nil {
		return err
	}
	q.made = true
	q.begin = int64(len(header))
	q.base = 0
	q.head, q.tail, q.records = q.begin, q.begin, 0
	return nil
}

// replace puts content in the place of the file that may be there, at once, and
// reports whether it is there now, also where it may not survive a crash and there is
// an error. q.mu is held.
func (q *Queue) replace(content ...[]byte) (done bool, err error) {
	if q.path == "" {
		q.memory.b = slices.Concat(content...)
		return true, nil
	}
	dir := filepath.Dir(q.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	f, err := os.OpenFile(q.path+tmpSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return false, err
	}
	for _, b := range content {
		if err == nil {
			_, err = f.Write(b)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := os.Rename(q.path+tmpSuffix, q.path); err != nil {
		return false, err
	}
	return true, syncDir(dir)
}

// Peek returns the oldest records: at least as many as atLeast, if there are, and
// more while they have fewer than bytes together. Of damage it returns ErrDamaged,
// and any other error where they cannot be read for now; the records before it are
// returned first, without one.
func (q *Queue) Peek(atLeast, bytes int) (records []Record, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == q.tail {
		return nil, nil
	}
	at, sum := q.head, 0
	err = q.with(func(f file) error {
		for at < q.tail && (len(records) < atLeast || sum < bytes) {
			data, parked, err := readFrame(f, at-q.base, q.tail-q.base)
			if err != nil {
				return err
			}
			at += int64(frameHeader + len(data))
			sum += len(data)
			records = append(records, Record{Data: data, ParkedAt: parked, end: at})
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

// Drop removes records that Front has returned, all that are still there.
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
	return q.dropped()
}

// DropAll removes all records, including damaged ones, and returns their number.
func (q *Queue) DropAll() (records int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	records, q.records = q.records, 0
	q.head = q.tail
	if q.gone() {
		return records, nil
	}
	return records, q.dropped()
}

// dropped updates the file after records were dropped. q.mu is held.
func (q *Queue) dropped() error {
	if !q.made {
		return nil
	}
	if gone := q.head - q.base - q.begin; q.head < q.tail && gone > compactFrom && gone > q.tail-q.head {
		return q.compact()
	}
	var b [8 + 4]byte
	putHead(b[:], q.head-q.base)
	err := q.with(func(f file) error {
		_, err := f.WriteAt(b[:], int64(headAt))
		return err
	})
	if err != nil {
		return fmt.Errorf("drop parked records: %w", err)
	}
	return nil
}

// compact rewrites the file without the records that were dropped. q.mu is held.
func (q *Queue) compact() error {
	rest := make([]byte, q.tail-q.head)
	err := q.with(func(f file) error {
		_, err := f.ReadAt(rest, q.head-q.base)
		return err
	})
	done := false
	if err == nil {
		done, err = q.replace(appendHeader(nil, q.name), rest)
	}
	if done {
		q.base = q.head - q.begin
		q.unsynced = err != nil
	}
	if err != nil {
		return fmt.Errorf("drop parked records: %w", err)
	}
	return nil
}

// Remove removes the queue and its file if it is empty, and reports whether it was
// empty.
func (q *Queue) Remove() (bool, error) {
	q.mu.Lock()
	if q.records > 0 {
		q.mu.Unlock()
		return false, nil
	}
	var err error
	if q.made {
		q.made, q.memory = false, memory{}
		q.head, q.tail, q.base = 0, 0, 0
		if q.path != "" {
			if err = os.Remove(q.path); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
	}
	q.mu.Unlock()
	q.store.forget(q)
	if err != nil {
		return true, fmt.Errorf("remove parked records: %w", err)
	}
	return true, nil
}

// openQueue opens a file and returns how many bytes at its end were damaged or
// unfinished. Those are cut off.
func openQueue(path string) (q *Queue, cut int64, err error) {
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
	if cut = info.Size() - at; cut > 0 {
		if err := f.Truncate(at); err != nil {
			return nil, 0, err
		}
	}
	return q, cut, nil
}
