package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
)

// pollInterval is how often Follow reads new lines.
const pollInterval = 500 * time.Millisecond

// Follow calls visit for each state that is written after Range has ended, across rotations, until
// ctx ends or visit returns an error.
func (f *Files) Follow(ctx context.Context, visit func(format.Entry) error) error {
	f.visit = visit
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		if err := f.catchUp(ctx); err != nil {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// catchUp reads the lines written since the last call.
func (f *Files) catchUp(ctx context.Context) error {
	replaced := f.replaced()
	// If the file was rotated before, it is complete.
	if err := f.readCurrent(ctx); err != nil {
		return err
	}
	if !replaced {
		return nil
	}
	if f.decoder != nil {
		if err := f.decoder.Close(); err != nil {
			return err
		}
	}
	// The open file has another name now, and there may be more rotated files after it.
	old := &Files{path: f.path, current: f.current}
	defer old.Close()
	f.current, f.text, f.decoder = nil, nil, nil
	if err := f.open(); err != nil {
		return err
	}
	rotated, err := f.rotated()
	if err != nil {
		return err
	}
	for _, m := range rotated {
		if !m.time.After(f.last) {
			continue
		}
		f.last = m.time
		if old.isAt(m.path) || f.isAt(m.path) {
			continue
		}
		if err := f.readRotated(ctx, m); err != nil {
			return err
		}
	}
	return f.readCurrent(ctx)
}

// replaced reports whether the path is no longer the open file, or the file was truncated.
func (f *Files) replaced() bool {
	if f.current == nil {
		_, err := os.Stat(f.path)
		return err == nil
	}
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false // until the sink creates a new one
	}
	open, errOpen := f.current.Stat()
	at, errAt := f.current.Seek(0, io.SeekCurrent)
	return err == nil && errOpen == nil && errAt == nil && (!os.SameFile(info, open) || info.Size() < at)
}

func (f *Files) isAt(path string) bool {
	if f.current == nil {
		return false
	}
	a, errA := f.current.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}
