// Package file reads entries from the files that a file sink writes: the current
// one, and those that were moved away, compressed or not. Any other file with
// Events that package input understands is read as well.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/input"
)

// Files are those of one sink. Its methods may not be called concurrently.
type Files struct {
	path string

	// Where Range ended, for Follow.
	current *os.File       // nil while there is none
	text    io.Reader      // of current; nil until it was read from
	decoder *input.Decoder // of text
	last    time.Time

	visit    func(format.Entry) error // of Range or Follow
	events   int                      // visited by Range
	problems []string                 // of the files that were read
	failed   bool                     // one of them is that Events may be missing
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
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("open %s: it is no regular file, and cannot be read more than once; save what comes from it first", path)
	}
	return f, nil
}

// Close closes what Range left open for Follow.
func (f *Files) Close() error {
	if f.current == nil {
		return nil
	}
	err := f.current.Close()
	f.current, f.text, f.decoder = nil, nil, nil
	return err
}

// Problems returns what the last Range could not read as Events: a text for each
// file and sort. err is set if more than that is wrong: nothing that was read was
// an Event, or a watch that was recorded ended in an error or packed data broke off, so
// that Events may be missing.
func (f *Files) Problems() (problems []string, err error) {
	if len(f.problems) > 0 && (f.failed || f.events == 0) {
		return f.problems, errors.New(strings.Join(f.problems, "\n"))
	}
	return f.problems, nil
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

// Range calls visit for each state of an Event in the order in which they were
// written, which in the files of a sink is about that of time, and leaves out files
// that were moved away before from. It holds no more than an Event. A last line of
// a sink without an end is being written, and left out. What visit returns ends it
// and is returned.
func (f *Files) Range(ctx context.Context, from time.Time, visit func(format.Entry) error) error {
	if err := f.Close(); err != nil {
		return err
	}
	f.events, f.problems, f.failed = 0, nil, false
	f.visit = func(e format.Entry) error { f.events++; return visit(e) }
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
		if err := f.readMoved(ctx, m); err != nil {
			return err
		}
	}
	if err := f.readCurrent(ctx); err != nil || f.decoder == nil {
		return err
	}
	if !f.decoder.MidLine() {
		if err := f.decoder.Close(); err != nil {
			return err
		}
	}
	f.keep(f.path, f.decoder.Problems())
	return nil
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
func (f *Files) readMoved(ctx context.Context, m moved) error {
	in, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
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
	text, err := f.textOf(in)
	if err != nil {
		return err
	}
	decoder := input.NewDecoder(f.visitOne)
	if err := f.readOn(ctx, in, text, decoder); err != nil {
		return err
	}
	err = decoder.Close()
	f.keep(in.Name(), decoder.Problems())
	return err
}

// visitOne calls what Range or Follow visit with now.
func (f *Files) visitOne(e format.Entry) error { return f.visit(e) }

// textOf returns the text of a file; that of one that is not for us, or damaged from
// the beginning, is empty.
func (f *Files) textOf(in *os.File) (io.Reader, error) {
	text, err := input.TextReader(in)
	var foreign *input.UnsupportedError
	if errors.As(err, &foreign) {
		f.problems = append(f.problems, fmt.Sprintf("%s %v", in.Name(), foreign))
		return strings.NewReader(""), nil
	}
	var damage *input.CorruptError
	if errors.As(err, &damage) {
		f.addDamage(in, damage)
		return strings.NewReader(""), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", in.Name(), err)
	}
	return text, nil
}

func (f *Files) addDamage(in *os.File, damage *input.CorruptError) {
	f.problems, f.failed = append(f.problems, fmt.Sprintf("%s %v", in.Name(), damage)), true
}

func (f *Files) keep(path string, problems []input.Problem) {
	for _, p := range problems {
		f.problems = append(f.problems, path+": "+p.String())
		f.failed = f.failed || p.WatchError
	}
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
func (f *Files) readCurrent(ctx context.Context) (err error) {
	if f.current == nil {
		return nil
	}
	if f.decoder == nil {
		if f.text, err = f.textOf(f.current); err != nil {
			return err
		}
		f.decoder = input.NewDecoder(f.visitOne)
	}
	return f.readOn(ctx, f.current, f.text, f.decoder)
}

// readOn reads on to where the text ends now, or breaks off.
func (f *Files) readOn(ctx context.Context, in *os.File, text io.Reader, to *input.Decoder) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := text.Read(buffer)
		if _, err := to.Write(buffer[:n]); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var damage *input.CorruptError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &damage):
			f.addDamage(in, damage)
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", in.Name(), err)
		}
	}
}
