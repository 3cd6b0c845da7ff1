package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// writer appends to the file and moves it away. It belongs to one goroutine.
//
// Whatever goes wrong, its methods may be called again: they begin with ready,
// which finds out what is there and opens what is not open.
type writer struct {
	path    string
	maxSize int64
	maxAge  time.Duration
	disk    disk
	archive *archive
	log     *slog.Logger

	lock  *os.File    // nil until it is held
	file  file        // nil while it is not open
	info  fs.FileInfo // of file, to tell it from others of its name
	size  int64       // of the lines that were synced
	torn  bool        // more may have been written
	began time.Time   // when the first line was written
	done  int         // records of the batch being sent that were synced
}

// write writes what is left of a batch, in as many files as it takes.
func (w *writer) write(b *sink.Batch) error {
	for w.done < b.Len() {
		if err := w.ready(); err != nil {
			return err
		}
		if w.size > 0 && w.full(len(b.Record(w.done))) || w.untilOld() <= 0 {
			if err := w.rotate(); err != nil {
				return err
			}
		}
		start := 0
		if w.done > 0 {
			start = b.Ends[w.done-1]
		}
		next := w.done + 1
		for next < b.Len() && !w.full(b.Ends[next]-start) {
			next++
		}
		if err := w.append(b.Data[start:b.Ends[next-1]]); err != nil {
			return err
		}
		w.done = next
	}
	w.done = 0
	return nil
}

// tend opens the file if it is not open, and moves it away if it is old enough.
func (w *writer) tend() error {
	if err := w.ready(); err != nil {
		return err
	}
	if w.untilOld() > 0 {
		return nil
	}
	return w.rotate()
}

// full reports whether so many more bytes are too many for the file.
func (w *writer) full(more int) bool {
	return w.maxSize > 0 && w.size+int64(more) > w.maxSize
}

// untilOld is how long the file may stay.
func (w *writer) untilOld() time.Duration {
	if w.file == nil || w.size == 0 || w.maxAge == 0 {
		return time.Hour // until somebody looks again
	}
	return time.Until(w.began.Add(w.maxAge))
}

// append writes lines and syncs them. If that fails, they are cut off again.
func (w *writer) append(lines []byte) error {
	if w.size == 0 {
		w.began = time.Now()
		// Where it cannot be kept, a file that is there after a restart is
		// taken for older than it is.
		_ = os.Chtimes(w.lock.Name(), time.Time{}, w.began)
	}
	_, err := w.file.Write(lines)
	if err == nil {
		// After a sync that failed nothing is known of what was written, and
		// a further one may succeed for no reason: the lines are written anew.
		err = w.file.Sync()
	}
	if err == nil {
		err = w.inPlace()
	}
	if err != nil {
		w.torn = true
		_ = w.cutBack() // else it is done, or fails, before the next write
		return err
	}
	w.size += int64(len(lines))
	return nil
}

// cutBack removes what was written after the last sync.
func (w *writer) cutBack() error {
	if !w.torn {
		return nil
	}
	if err := w.file.Truncate(w.size); err != nil {
		return fmt.Errorf("cut off what was written in part: %w", err)
	}
	w.torn = false
	return nil
}

var errNotInPlace = errors.New("the file was moved or removed by someone else")

// inPlace returns errNotInPlace if the open file is not the one at the path.
// What was written to such a file may be gone already.
func (w *writer) inPlace() error {
	info, err := w.disk.Lstat(w.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, w.info) {
		return fmt.Errorf("write %s: %w", w.path, errNotInPlace)
	}
	return err
}

// ready sees to it that the file is open, is the one at the path, and ends with
// the last line that was synced.
func (w *writer) ready() error {
	if w.file == nil {
		return w.open()
	}
	cut := w.cutBack()
	err := w.inPlace()
	switch {
	case errors.Is(err, errNotInPlace):
		w.log.Info(errNotInPlace.Error() + "; a new one is begun")
		w.closeFile()
		return w.open()
	case err != nil:
		return err
	case cut != nil:
		return cut
	}
	info, err := w.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != w.size {
		w.log.Info("the file was truncated or written to by someone else", "bytes", info.Size(), "expected", w.size)
		w.closeFile()
		return w.open()
	}
	return nil
}

// open opens the file, which is made if it is missing, and mends its end.
func (w *writer) open() (err error) {
	dir := filepath.Dir(w.path)
	if _, err := w.disk.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: directory %s is missing: %w", w.path, dir, fs.ErrNotExist)
	}
	if w.lock == nil || !isAt(w.lock, w.lock.Name()) {
		w.unlock()
		if w.lock, err = openLocked(w.path + ".lock"); err != nil {
			return err
		}
	}
	info, err := w.disk.Lstat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // will be made
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("open %s: it is a directory, want a file", w.path)
	case !info.Mode().IsRegular():
		// A link could lead two sinks to one file; nothing else can be synced
		// and moved away.
		return fmt.Errorf("open %s: it is not a regular file", w.path)
	}
	f, err := w.disk.OpenFile(w.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	size, err := w.mendEnd(f)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// The file may be here, or have its name, since before a crash.
	if err := w.disk.SyncDir(dir); err != nil {
		return err
	}
	if w.info, err = f.Stat(); err != nil {
		return err
	}
	w.file, w.size, w.torn = f, size, false
	w.began = time.Now()
	if lock, err := w.lock.Stat(); err == nil && lock.ModTime().Before(w.began) {
		w.began = lock.ModTime()
	}
	w.archive.wake()
	return nil
}

// mendEnd cuts off a last line that has no end, and returns the size of the
// others.
func (w *writer) mendEnd(f file) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size, err = endOfLines(f, info.Size())
	if err != nil || size == info.Size() {
		return size, err
	}
	if err := f.Truncate(size); err != nil {
		return 0, fmt.Errorf("cut off a torn last line: %w", err)
	}
	w.log.Warn("a torn last line was cut off; its record was not acknowledged and comes again", "bytes", info.Size()-size)
	return size, nil
}

// endOfLines returns where the last complete line of so many bytes ends.
func endOfLines(f file, size int64) (int64, error) {
	chunk := make([]byte, 64<<10)
	for size > 0 {
		start := max(0, size-int64(len(chunk)))
		b := chunk[:size-start]
		if _, err := f.ReadAt(b, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		size = start
	}
	return 0, nil
}

// rotate moves the file away and begins a new one. Nothing is written to the new
// one before the names of both are synced.
func (w *writer) rotate() error {
	name, err := w.archive.name(time.Now())
	if err != nil {
		return fmt.Errorf("rotate %s: %w", w.path, err)
	}
	w.closeFile()
	if err := w.disk.Rename(w.path, name); err != nil {
		return fmt.Errorf("rotate %s: %w", w.path, err)
	}
	return w.open()
}

// closeFile closes the file. What counts in it has been synced.
func (w *writer) closeFile() {
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.info, w.size, w.torn = nil, nil, 0, false
}

func (w *writer) unlock() {
	if w.lock != nil {
		w.lock.Close()
	}
	w.lock = nil
}

func (w *writer) close() {
	w.closeFile()
	w.unlock()
}
