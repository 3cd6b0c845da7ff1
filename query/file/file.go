// Package file reads entries from the files that a file sink writes: the current
// one, and those that were moved away, compressed or not.
package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/query/line"
)

// Files are those of one sink. Its methods may not be called concurrently.
type Files struct {
	path string

	// Where Range ended, for Follow.
	current *os.File // nil while there is none
	torn    []byte   // the beginning of its last line
	last    time.Time
}

// Open finds the files of a sink by the path of its configuration. A file that
// was moved away, or any other, can be named as well: then it is read alone.
func Open(path string) (*Files, error) {
	f := &Files{path: path}
	rotated, err := f.rotated()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(rotated) > 0: // all was moved away
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("open %s: it is a directory; name the file of a file sink", path)
	}
	return f, nil
}

// Close closes what Range left open for Follow.
func (f *Files) Close() error {
	if f.current == nil {
		return nil
	}
	err := f.current.Close()
	f.current = nil
	return err
}

// moved is a file that was moved away.
type moved struct {
	path string // without gzSuffix
	time time.Time
}

const (
	// timeLayout of the names of files that were moved away.
	timeLayout = "20060102T150405.000Z"
	gzSuffix   = ".gz"
)

// rotated returns the files that were moved away, oldest first.
func (f *Files) rotated() ([]moved, error) {
	dir, base := filepath.Split(f.path)
	ext := filepath.Ext(base)
	if ext == base {
		ext = "" // .events has none
	}
	prefix := strings.TrimSuffix(base, ext) + "-"
	names, err := os.ReadDir(filepath.Clean(dir)) // sorted by name, and so by time
	if err != nil {
		return nil, err
	}
	var files []moved
	for _, name := range names {
		rest, ok := strings.CutPrefix(name.Name(), prefix)
		if !ok || len(rest) < len(timeLayout) {
			continue
		}
		t, err := time.Parse(timeLayout, rest[:len(timeLayout)])
		suffix, ok := strings.CutPrefix(rest[len(timeLayout):], ext)
		if err != nil || !ok || suffix != "" && suffix != gzSuffix {
			continue
		}
		if n := len(files); n > 0 && files[n-1].time.Equal(t) {
			continue // the same file, compressed
		}
		files = append(files, moved{path: filepath.Join(dir, prefix+rest[:len(timeLayout)]+ext), time: t})
	}
	return files, nil
}

// skew is how much earlier than its newest record a file may have been moved
// away, by another clock.
const skew = time.Hour

// Range calls f for each line in the order in which they were written, which is
// about that of time, and leaves out files that were moved away before from. It
// holds no more than a line. A last line without an end is being written, and
// left out. What f returns ends it and is returned.
func (f *Files) Range(ctx context.Context, from time.Time, visit func(line.Entry) error) error {
	if err := f.Close(); err != nil {
		return err
	}
	f.torn = nil
	// First the current file, so that nothing is missed if it is moved away now.
	if err := f.open(); err != nil {
		return err
	}
	rotated, err := f.rotated()
	if err != nil {
		return fmt.Errorf("read the files of %s: %w", f.path, err)
	}
	for _, m := range rotated {
		f.last = m.time
		if m.time.Add(skew).Before(from) {
			continue
		}
		if err := f.readMoved(ctx, m, visit); err != nil {
			return err
		}
	}
	return f.readCurrent(ctx, visit)
}

// open opens the current file, if there is one.
func (f *Files) open() error {
	current, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f.current = current
	return err
}

// readMoved reads a file that was moved away, unless it is the one that is open
// as the current one.
func (f *Files) readMoved(ctx context.Context, m moved, visit func(line.Entry) error) error {
	in, err := os.Open(m.path)
	compressed := errors.Is(err, fs.ErrNotExist)
	if compressed {
		in, err = os.Open(m.path + gzSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile, being the oldest
	}
	if err != nil {
		return err
	}
	defer in.Close()
	if f.isCurrent(in) {
		return nil
	}
	if compressed {
		_, err = readGzip(ctx, in, visit)
	} else {
		_, err = readLines(ctx, in, nil, visit)
	}
	return failed(in, err)
}

func (f *Files) isCurrent(other *os.File) bool {
	if f.current == nil {
		return false
	}
	a, errA := f.current.Stat()
	b, errB := other.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// readCurrent reads the current file from where it was read to.
func (f *Files) readCurrent(ctx context.Context, visit func(line.Entry) error) (err error) {
	if f.current == nil {
		return nil
	}
	if filepath.Ext(f.path) == gzSuffix { // named by itself
		_, err = readGzip(ctx, f.current, visit)
	} else {
		f.torn, err = readLines(ctx, f.current, f.torn, visit)
	}
	return failed(f.current, err)
}

// readError is a failure to read, as opposed to one of the visitor.
type readError struct{ err error }

func (e readError) Error() string { return e.err.Error() }

func failed(in *os.File, err error) error {
	var read readError
	if errors.As(err, &read) {
		return fmt.Errorf("read %s: %w", in.Name(), read.err)
	}
	return err
}

func readGzip(ctx context.Context, in io.Reader, visit func(line.Entry) error) ([]byte, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, readError{err}
	}
	return readLines(ctx, z, nil, visit)
}

// longest is more than any line of ours has.
const longest = 16 << 20

// readLines visits complete lines, of which the first begins with torn, and
// returns what follows the last one.
func readLines(ctx context.Context, in io.Reader, torn []byte, visit func(line.Entry) error) ([]byte, error) {
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		part, err := lines.ReadSlice('\n')
		torn = append(torn, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if len(torn) > longest {
				return nil, readError{fmt.Errorf("a line is longer than %d bytes: this is no file of Events", longest)}
			}
			continue
		case errors.Is(err, io.EOF):
			return torn, nil
		case err != nil:
			return torn, readError{err}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if text := bytes.TrimSpace(torn); len(text) > 0 {
			if err := visit(line.Entry{Line: string(text)}); err != nil {
				return nil, err
			}
		}
		torn = torn[:0]
	}
}
