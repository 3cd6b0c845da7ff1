package file

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
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
	fs      fileSystem
	archive *archive
	log     *slog.Logger

	lock      *os.File // nil until it is held
	stateFile file     // the lock's file, to read and write its content
	boot      string

	file     file        // nil while it is not open
	info     fs.FileInfo // of file, to tell it from others of its name
	state                // of file; Synced is the size of the lines that were synced
	tail     []byte      // the last fingerprint bytes of those
	unsynced bool        // some of Appending may have been written behind them
	written  int         // records of the batch being sent that were synced

	rotation      failureLog // the file cannot be moved away
	retryRotation time.Time  // when that is tried next; zero: it works
}

// write writes what is left of a batch, in as many files as it takes.
func (w *writer) write(b *sink.Batch) error {
	for w.written < b.Len() {
		if err := w.ensureOpen(); err != nil {
			return err
		}
		if w.Synced > 0 && w.exceedsMaxSize(len(b.Record(w.written))) || w.untilMaxAge() <= 0 {
			if err := w.rotate(); err != nil {
				return err
			}
		}
		start := 0
		if w.written > 0 {
			start = b.Ends[w.written-1]
		}
		next := w.written + 1
		for next < b.Len() && !w.exceedsMaxSize(b.Ends[next]-start) {
			next++
		}
		if err := w.append(b.Data[start:b.Ends[next-1]]); err != nil {
			return err
		}
		w.written = next
	}
	w.written = 0
	return nil
}

// maintain opens the file if it is not open, and moves it away if it is old enough.
func (w *writer) maintain() error {
	if err := w.ensureOpen(); err != nil {
		return err
	}
	if w.untilMaxAge() > 0 {
		return nil
	}
	return w.rotate()
}

// exceedsMaxSize reports whether so many more bytes are too many for the file. While it
// cannot be moved away, nothing is.
func (w *writer) exceedsMaxSize(more int) bool {
	return w.maxSize > 0 && w.Synced+int64(more) > w.maxSize && !time.Now().Before(w.retryRotation)
}

// untilMaxAge is how long the file may stay.
func (w *writer) untilMaxAge() time.Duration {
	if w.file == nil || w.Synced == 0 || w.maxAge == 0 {
		return time.Hour // until somebody looks again
	}
	old := w.Began.Add(w.maxAge)
	if old.Before(w.retryRotation) {
		old = w.retryRotation
	}
	return time.Until(old)
}

// append writes lines and syncs them. If that fails, they are cut off again.
func (w *writer) append(lines []byte) error {
	if w.Synced == 0 {
		w.Began = time.Now()
	}
	w.Appending = len(lines)
	if err := w.save(w.stateFile); err != nil {
		return err
	}
	w.unsynced = true
	_, err := w.file.Write(lines)
	if err == nil {
		// After a sync that failed nothing is known of what was written, and
		// a further one may succeed for no reason: the lines are written anew.
		err = w.file.Sync()
	}
	if err == nil {
		err = w.checkInPlace()
	}
	if err != nil {
		_ = w.truncateUnsynced() // else it is done, or fails, before the next write
		return err
	}
	w.unsynced = false
	w.Synced += int64(len(lines))
	w.tail = append(w.tail, lines[max(0, len(lines)-fingerprint):]...)
	w.tail = w.tail[max(0, len(w.tail)-fingerprint):]
	_ = w.saveIdle() // the lines are synced; and the next append saves it again
	return nil
}

// saveIdle notes that nothing is being appended.
func (w *writer) saveIdle() error {
	w.Appending, w.Before = 0, crc32.ChecksumIEEE(w.tail)
	return w.save(w.stateFile)
}

// truncateUnsynced removes what was written after the last sync. What somebody else has
// written behind that is not ours to remove: then it all stays, and the file is
// opened anew.
func (w *writer) truncateUnsynced() error {
	if !w.unsynced {
		return nil
	}
	info, err := w.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > w.Synced && info.Size() <= w.Synced+int64(w.Appending) {
		if err := w.file.Truncate(w.Synced); err != nil {
			return fmt.Errorf("cut off what was written in part: %w", err)
		}
	}
	w.unsynced = false
	_ = w.saveIdle()
	return nil
}

var errNotInPlace = errors.New("the file was moved or removed by someone else")

// checkInPlace returns errNotInPlace if the open file is not the one at the path.
// What was written to such a file may be gone already.
func (w *writer) checkInPlace() error {
	info, err := w.fs.Lstat(w.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, w.info) {
		return fmt.Errorf("write %s: %w", w.path, errNotInPlace)
	}
	return err
}

// ensureOpen sees to it that the file is open, is the one at the path, and ends with
// the last line that was synced.
func (w *writer) ensureOpen() error {
	if w.file == nil {
		return w.open()
	}
	cut := w.truncateUnsynced()
	err := w.checkInPlace()
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
	if info.Size() != w.Synced {
		w.log.Info("the file was truncated or written to by someone else", "bytes", info.Size(), "expected", w.Synced)
		w.closeFile()
		return w.open()
	}
	return nil
}

// open opens the file, which is made if it is missing, and mends its end.
func (w *writer) open() (err error) {
	dir := filepath.Dir(w.path)
	if _, err := w.fs.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: directory %s is missing: %w", w.path, dir, fs.ErrNotExist)
	}
	info, err := w.fs.Lstat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // will be made
	case err != nil:
		return err
	default:
		if err := checkRegular(info.Mode()); err != nil {
			return fmt.Errorf("open %s: it %w", w.path, err) // before a lock is made beside it
		}
	}
	if w.lock == nil || !isAt(w.lock, w.lock.Name()) {
		w.unlock()
		if w.lock, err = openLocked(w.path + ".lock"); err != nil {
			return err
		}
	}
	if w.stateFile == nil {
		if w.stateFile, err = w.fs.OpenFile(w.lock.Name(), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	known, found, err := loadState(w.stateFile)
	if err != nil {
		return err
	}
	if lock, err := w.lock.Stat(); err == nil && !found {
		known.Began = lock.ModTime() // as it was kept by a version without a state
	}
	f, err := w.fs.OpenFile(w.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	size, err := w.repairEnd(f, known)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// The file may be here, or have its name, since before a crash.
	if err := w.fs.SyncDir(dir); err != nil {
		return err
	}
	if w.info, err = f.Stat(); err != nil {
		return err
	}
	w.tail = make([]byte, min(size, fingerprint), 2*fingerprint)
	if _, err := f.ReadAt(w.tail, size-int64(len(w.tail))); err != nil {
		return err
	}
	w.state = state{Began: time.Now(), Synced: size, Boot: w.boot}
	if !known.Began.IsZero() && known.Began.Before(w.Began) {
		w.Began = known.Began
	}
	if err := w.saveIdle(); err != nil {
		return err
	}
	if err := w.stateFile.Sync(); err != nil {
		return err
	}
	w.file, w.unsynced = f, false
	w.archive.wake()
	return nil
}

// repairEnd sees to it that the file ends with a whole line, and returns its size.
// An unfinished last line that this sink left is cut off; one that it did not
// write is ended.
func (w *writer) repairEnd(f file, known state) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size = info.Size()
	start, err := lastLineEnd(f, size)
	if err != nil || start == size {
		return size, err
	}
	mine, err := known.ownsTornLine(f, start, size, w.boot)
	if err != nil {
		return 0, err
	}
	if mine {
		if err := f.Truncate(start); err != nil {
			return 0, fmt.Errorf("cut off a torn last line: %w", err)
		}
		w.log.Warn("a torn last line was cut off; its record was not acknowledged and comes again", "bytes", size-start)
		return start, nil
	}
	if _, err := f.Write([]byte{'\n'}); err != nil {
		return 0, fmt.Errorf("end the last line: %w", err)
	}
	w.log.Warn("the last line of the file had no end and was not written by this sink; a newline was added, and lines follow behind it", "bytes", size-start)
	return size + 1, nil
}

// lastLineEnd returns where the last complete line of so many bytes ends.
func lastLineEnd(f file, size int64) (int64, error) {
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

// rotationRetry is between attempts to move the file away that cannot be.
const rotationRetry = time.Minute

// rotate moves the file away and begins a new one. Nothing is written to the new
// one before the names of both are synced. If the file cannot be moved away, it
// stays, and grows on.
func (w *writer) rotate() error {
	name, err := w.archive.nextName(time.Now())
	if err == nil {
		w.closeFile()
		err = w.fs.Rename(w.path, name)
	}
	w.rotation.report(err)
	w.retryRotation = time.Time{}
	if err != nil {
		w.retryRotation = time.Now().Add(rotationRetry)
	}
	return w.ensureOpen()
}

// closeFile closes the file. What counts in it has been synced.
func (w *writer) closeFile() {
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.info, w.state, w.tail, w.unsynced = nil, nil, state{}, nil, false
}

func (w *writer) unlock() {
	if w.stateFile != nil {
		w.stateFile.Close()
	}
	if w.lock != nil {
		w.lock.Close()
	}
	w.lock, w.stateFile = nil, nil
}

// close lets go of the file and its lock.
func (w *writer) close() {
	if w.file != nil && w.truncateUnsynced() == nil {
		// Nothing that comes to be behind these lines is ours.
		w.Closed = true
		if w.save(w.stateFile) == nil {
			_ = w.stateFile.Sync()
		}
	}
	w.closeFile()
	w.unlock()
}
