package file

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// writer appends to the file and rotates it. It belongs to one goroutine.
//
// Its methods may be called again after any error: they begin with ensureOpen, which inspects the
// file and opens it if necessary.
type writer struct {
	path    string
	maxSize int64
	maxAge  time.Duration
	fs      fileSystem
	archive *archive
	log     *slog.Logger

	lock      *os.File // nil unless locked
	stateFile file     // the lock file, for its content
	boot      string

	file     file        // nil unless open
	info     fs.FileInfo // of file, to detect that another file has its name
	state                // of file; Synced is the size of its synced lines
	tail     []byte      // the last fingerprint bytes of these
	unsynced bool        // some of Appending may have been written after them
	written  int         // records of the current batch that were synced

	rotation      failureLog
	retryRotation time.Time // time of the next attempt after a failure; zero: none failed
}

// write writes the rest of a batch, to several files if necessary.
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

// maintain opens the file if it is not open, and rotates it if it is old enough.
func (w *writer) maintain() error {
	if err := w.ensureOpen(); err != nil {
		return err
	}
	if w.untilMaxAge() > 0 {
		return nil
	}
	return w.rotate()
}

// exceedsMaxSize reports whether the file would be too large with more bytes. After a failed
// rotation no file is too large until the next attempt.
func (w *writer) exceedsMaxSize(more int) bool {
	return w.maxSize > 0 && w.Synced+int64(more) > w.maxSize && !time.Now().Before(w.retryRotation)
}

// untilMaxAge returns the time until the file has to be rotated because of its age.
func (w *writer) untilMaxAge() time.Duration {
	if w.file == nil || w.Synced == 0 || w.maxAge == 0 {
		return time.Hour // any time: it is checked again
	}
	rotateAt := w.Began.Add(w.maxAge)
	if rotateAt.Before(w.retryRotation) {
		rotateAt = w.retryRotation
	}
	return time.Until(rotateAt)
}

// append writes lines and syncs them. If that fails, it removes them again.
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
		// After a failed sync the written data may be lost, even if a later sync
		// succeeds. The lines have to be written again.
		err = w.file.Sync()
	}
	if err == nil {
		err = w.checkInPlace()
	}
	if err != nil {
		_ = w.truncateUnsynced() // the next write tries it again
		return err
	}
	w.unsynced = false
	w.Synced += int64(len(lines))
	w.tail = append(w.tail, lines[max(0, len(lines)-fingerprint):]...)
	w.tail = w.tail[max(0, len(w.tail)-fingerprint):]
	_ = w.saveIdle() // the lines are synced, and the next append saves the state again
	return nil
}

// saveIdle saves the state that nothing is being appended.
func (w *writer) saveIdle() error {
	w.Appending, w.Before = 0, crc32.ChecksumIEEE(w.tail)
	return w.save(w.stateFile)
}

// truncateUnsynced removes bytes that were written after the last sync. It keeps all bytes if another
// program has written after them; ensureOpen then opens the file again.
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
			return fmt.Errorf("remove an incomplete write: %w", err)
		}
	}
	w.unsynced = false
	_ = w.saveIdle()
	return nil
}

var errNotInPlace = errors.New("another program moved or removed the file")

// checkInPlace returns errNotInPlace if the open file is not the file at the path. Lines written to
// such a file may be lost.
func (w *writer) checkInPlace() error {
	info, err := w.fs.Lstat(w.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, w.info) {
		return fmt.Errorf("write %s: %w", w.path, errNotInPlace)
	}
	return err
}

// rotationRetry is the interval between attempts to rotate the file.
const rotationRetry = time.Minute

// rotate renames the file and creates a new one. Nothing is written to the new one before both names
// are synced. If the file cannot be renamed, it remains in use.
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

// closeFile closes the file. Its acknowledged lines are synced.
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

// close closes and unlocks the file.
func (w *writer) close() {
	if w.file != nil && w.truncateUnsynced() == nil {
		// Lines appended from now on belong to others.
		w.Closed = true
		if w.save(w.stateFile) == nil {
			_ = w.stateFile.Sync()
		}
	}
	w.closeFile()
	w.unlock()
}
