package file

import (
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// archive holds the files that were moved away. They are compressed and removed
// by run; name and wake may be called meanwhile.
type archive struct {
	dir         string
	prefix, ext string // of their names, around the time
	keep        int
	gzip        bool
	fs          fileSystem
	log         *slog.Logger
	woken       chan struct{}
}

func newArchive(path string, c Config, d fileSystem, log *slog.Logger) *archive {
	dir, base := filepath.Split(path)
	stem, ext := base, filepath.Ext(base)
	if ext != base {
		stem = strings.TrimSuffix(base, ext)
	} else {
		ext = "" // .events has none
	}
	return &archive{
		dir:    filepath.Clean(dir),
		prefix: stem + "-",
		ext:    ext,
		keep:   c.Keep,
		gzip:   c.Gzip,
		fs:     d,
		log:    log,
		woken:  make(chan struct{}, 1),
	}
}

const (
	// timeLayout is always as wide, so that names sort by time.
	timeLayout = "20060102T150405.000Z"
	gzSuffix   = ".gz"
	tmpSuffix  = ".gz.tmp"
)

// rotatedFile is a file that was moved away, in any of the forms it may have at
// once.
type rotatedFile struct {
	time            time.Time
	plain, gz, temp bool
}

func (a *archive) path(t time.Time) string {
	return filepath.Join(a.dir, a.prefix+t.Format(timeLayout)+a.ext)
}

// list returns the files, oldest first.
func (a *archive) list() ([]rotatedFile, error) {
	names, err := a.fs.ReadDir(a.dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var files []rotatedFile
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, a.prefix)
		if !ok || len(rest) < len(timeLayout) {
			continue
		}
		t, err := time.Parse(timeLayout, rest[:len(timeLayout)])
		if err != nil || t.Format(timeLayout) != rest[:len(timeLayout)] { // a comma is parsed as well
			continue
		}
		suffix, ok := strings.CutPrefix(rest[len(timeLayout):], a.ext)
		if !ok || suffix != "" && suffix != gzSuffix && suffix != tmpSuffix {
			continue
		}
		if n := len(files); n == 0 || !files[n-1].time.Equal(t) {
			files = append(files, rotatedFile{time: t})
		}
		f := &files[len(files)-1]
		f.plain = f.plain || suffix == ""
		f.gz = f.gz || suffix == gzSuffix
		f.temp = f.temp || suffix == tmpSuffix
	}
	return files, nil
}

// nextName returns the path that a file moved away now should have: behind all
// others, whatever the clock says.
func (a *archive) nextName(now time.Time) (string, error) {
	files, err := a.list()
	if err != nil {
		return "", err
	}
	t := now.UTC().Truncate(time.Millisecond)
	if n := len(files); n > 0 && !t.After(files[n-1].time) {
		t = files[n-1].time.Add(time.Millisecond)
	}
	return a.path(t), nil
}

// wake lets run look whether there is something to do.
func (a *archive) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// run tidies whenever it is woken, until ctx ends.
func (a *archive) run(ctx context.Context) {
	tidying := failureLog{log: a.log, failed: "rotated files cannot be compressed or removed for now", recovered: "rotated files can be compressed and removed again"}
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-a.woken:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		err := a.clean(ctx)
		if ctx.Err() != nil {
			return
		}
		tidying.report(err)
		retry.Stop()
		if err != nil {
			retry.Reset(time.Minute)
		}
	}
}

// clean leaves every file in one form, and as many as are to be kept. What cannot
// be removed does not keep it from the rest.
func (a *archive) clean(ctx context.Context) error {
	files, err := a.list()
	if err != nil {
		return err
	}
	remove := func(path string, exists bool) {
		if exists {
			err = cmp.Or(err, a.fs.Remove(path))
		}
	}
	var rotated []rotatedFile
	for _, f := range files {
		path := a.path(f.time)
		remove(path+tmpSuffix, f.temp)
		if f.gz { // complete, else it would have another name
			remove(path, f.plain)
			f.plain = false
		}
		if f.plain || f.gz {
			rotated = append(rotated, f)
		}
	}
	if a.keep > 0 && len(rotated) > a.keep {
		old := rotated[:len(rotated)-a.keep]
		rotated = rotated[len(old):]
		for _, f := range old {
			path := a.path(f.time)
			remove(path, f.plain)
			remove(path+gzSuffix, f.gz)
		}
	}
	for _, f := range rotated {
		if !a.gzip || !f.plain {
			continue
		}
		if err := a.compress(ctx, a.path(f.time)); err != nil {
			return err
		}
	}
	return err
}

// compress replaces a file by its compressed form. The file goes last: a crash
// leaves it, or both, never neither.
func (a *archive) compress(ctx context.Context, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("compress %s: %w", path, err)
		}
	}()
	temp := path + tmpSuffix
	if err := a.writeCompressed(ctx, temp, path); err != nil {
		_ = a.fs.Remove(temp) // else when it is tidied next
		return err
	}
	if err := a.fs.Rename(temp, path+gzSuffix); err != nil {
		return err
	}
	if err := a.fs.SyncDir(a.dir); err != nil {
		return err
	}
	return a.fs.Remove(path)
}

func (a *archive) writeCompressed(ctx context.Context, to, from string) error {
	in, err := a.fs.OpenFile(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := a.fs.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	z := gzip.NewWriter(out)
	z.Name = filepath.Base(from)
	if _, err := io.Copy(z, contextReader{ctx, in}); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return out.Sync()
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// failureLog logs the beginning and the end of a time in which something fails
// that is tried again and again, and what lies between at debug.
type failureLog struct {
	log               *slog.Logger
	failed, recovered string
	since             time.Time // zero: there is none
}

func (t *failureLog) report(err error) {
	switch {
	case err != nil && t.since.IsZero():
		t.since = time.Now()
		t.log.Warn(t.failed, "err", err)
	case err != nil:
		t.log.Debug(t.failed, "err", err)
	case !t.since.IsZero():
		t.log.Info(t.recovered, "after", time.Since(t.since).Round(time.Millisecond))
		t.since = time.Time{}
	}
}
