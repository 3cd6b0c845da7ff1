package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ensureOpen makes sure that the file is open, is the file at the path, and ends with the last synced
// line.
func (w *writer) ensureOpen() error {
	if w.file == nil {
		return w.open()
	}
	truncateErr := w.truncateUnsynced()
	err := w.checkInPlace()
	switch {
	case errors.Is(err, errNotInPlace):
		w.log.Info(errNotInPlace.Error() + "; starting a new one")
		w.closeFile()
		return w.open()
	case err != nil:
		return err
	case truncateErr != nil:
		return truncateErr
	}
	info, err := w.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != w.Synced {
		w.log.Info("another program truncated the file or wrote to it", "bytes", info.Size(), "expected", w.Synced)
		w.closeFile()
		return w.open()
	}
	return nil
}

// open locks the file, opens or creates it, and repairs its end.
func (w *writer) open() (err error) {
	dir := filepath.Dir(w.path)
	if _, err := w.fs.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: directory %s is missing: %w", w.path, dir, fs.ErrNotExist)
	}
	info, err := w.fs.Lstat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it is created below
	case err != nil:
		return err
	default:
		if err := checkRegular(info.Mode()); err != nil {
			return fmt.Errorf("open %s: it %w", w.path, err) // before the lock file is created
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
	saved, found, err := loadState(w.stateFile)
	if err != nil {
		return err
	}
	if lock, err := w.lock.Stat(); err == nil && !found {
		saved.Began = lock.ModTime() // versions without a state used it for this
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
	size, err := w.repairEnd(f, saved)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A crash may have prevented the sync of the name.
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
	if !saved.Began.IsZero() && saved.Began.Before(w.Began) {
		w.Began = saved.Began
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

// repairEnd makes the file end with a whole line, and returns its size. It removes an unfinished last
// line that this sink wrote, and ends one of another program.
func (w *writer) repairEnd(f file, saved state) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size = info.Size()
	start, err := lastLineEnd(f, size)
	if err != nil || start == size {
		return size, err
	}
	own, err := saved.ownsTornLine(f, start, size, w.boot)
	if err != nil {
		return 0, err
	}
	if own {
		if err := f.Truncate(start); err != nil {
			return 0, fmt.Errorf("remove a torn last line: %w", err)
		}
		w.log.Warn("removed a torn last line; its record was not acknowledged and is delivered again", "bytes", size-start)
		return start, nil
	}
	if _, err := f.Write([]byte{'\n'}); err != nil {
		return 0, fmt.Errorf("end the last line: %w", err)
	}
	w.log.Warn("the last line of the file has no end and belongs to another program; added a newline", "bytes", size-start)
	return size + 1, nil
}

// lastLineEnd returns the end of the last complete line in the first size bytes of a file.
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
