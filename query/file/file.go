// Package file reads entries from the files of a file sink: the current file and the rotated ones,
// compressed or not. It also reads any other file with Events that package input supports.
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

// Files reads the files of one sink. It is not safe for concurrent use.
type Files struct {
	path string

	// Where Range ended; Follow continues there.
	current *os.File       // nil if there is none
	text    io.Reader      // of current; nil before the first read
	decoder *input.Decoder // of text
	last    time.Time

	visit    func(format.Entry) error // of Range or Follow
	events   int                      // visited by Range
	problems []string                 // of the files read
	failed   bool                     // because of a problem, Events may be missing
}

// Open finds the files of a sink by the path of its configuration. The path of a rotated file, or
// of any other, selects that file alone.
func Open(path string) (*Files, error) {
	f := &Files{path: path}
	rotated, err := f.rotated()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(rotated) > 0: // all files are rotated
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("open %s: is a directory; the path of a file sink is expected", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("open %s: not a regular file, which would be read more than once; save its content to a file first", path)
	}
	return f, nil
}

// Close closes the current file, which Range leaves open for Follow.
func (f *Files) Close() error {
	if f.current == nil {
		return nil
	}
	err := f.current.Close()
	f.current, f.text, f.decoder = nil, nil, nil
	return err
}

// Problems describes the parts of the files that the last Range could not read as Events, one text
// for each file and kind. err is set if Range found no Event, or if Events may be missing: a
// recorded watch ended in an error, or compressed data is truncated.
func (f *Files) Problems() (problems []string, err error) {
	if len(f.problems) > 0 && (f.failed || f.events == 0) {
		return f.problems, errors.New(strings.Join(f.problems, "\n"))
	}
	return f.problems, nil
}

// rotatedFile is a file that the sink has rotated.
type rotatedFile struct {
	path string // without gzSuffix
	time time.Time
}

const (
	// timeLayout of the names of rotated files.
	timeLayout = "20060102T150405.000Z"
	gzSuffix   = ".gz"
)

// rotated returns the rotated files, oldest first.
func (f *Files) rotated() ([]rotatedFile, error) {
	dir, base := filepath.Split(f.path)
	ext := filepath.Ext(base)
	if ext == base {
		ext = "" // .events has no extension
	}
	prefix := strings.TrimSuffix(base, ext) + "-"
	names, err := os.ReadDir(filepath.Clean(dir)) // sorted by name, which is by time
	if err != nil {
		return nil, err
	}
	var files []rotatedFile
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
		files = append(files, rotatedFile{path: filepath.Join(dir, prefix+rest[:len(timeLayout)]+ext), time: t})
	}
	return files, nil
}

// maxClockSkew is how much earlier than its newest record a file may have been rotated, because of
// another clock.
const maxClockSkew = time.Hour

// Range calls visit for each state in the order of the files, which is approximately by time in the
// files of a sink. It skips files that were rotated before from, and an incomplete last line, which
// the sink is writing. It holds one Event. An error of visit ends it and is returned.
func (f *Files) Range(ctx context.Context, from time.Time, visit func(format.Entry) error) error {
	if err := f.Close(); err != nil {
		return err
	}
	f.events, f.problems, f.failed = 0, nil, false
	f.visit = func(e format.Entry) error { f.events++; return visit(e) }
	// The current file is opened first: if it is rotated now, it is still read.
	if err := f.open(); err != nil {
		return err
	}
	rotated, err := f.rotated()
	if err != nil {
		return fmt.Errorf("list the files of %s: %w", f.path, err)
	}
	for _, m := range rotated {
		f.last = m.time
		if m.time.Add(maxClockSkew).Before(from) {
			continue
		}
		if err := f.readRotated(ctx, m); err != nil {
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
	f.addProblems(f.path, f.decoder.Problems())
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

// readRotated reads a rotated file, unless it is open as the current one.
func (f *Files) readRotated(ctx context.Context, m rotatedFile) error {
	in, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		in, err = os.Open(m.path + gzSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile, as the oldest
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
	if err := f.readToEnd(ctx, in, text, decoder); err != nil {
		return err
	}
	err = decoder.Close()
	f.addProblems(in.Name(), decoder.Problems())
	return err
}

// visitOne calls the visit function of the running Range or Follow.
func (f *Files) visitOne(e format.Entry) error { return f.visit(e) }

// textOf returns the text of a file; empty if its format is not supported or its begin is damaged.
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

func (f *Files) addProblems(path string, problems []input.Problem) {
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

// readCurrent continues reading the current file.
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
	return f.readToEnd(ctx, f.current, f.text, f.decoder)
}

// readToEnd reads to the current end of the text, or to the point at which it is truncated.
func (f *Files) readToEnd(ctx context.Context, in *os.File, text io.Reader, decoder *input.Decoder) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := text.Read(buffer)
		if _, err := decoder.Write(buffer[:n]); err != nil {
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
