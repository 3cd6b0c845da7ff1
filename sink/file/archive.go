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

	"github.com/hindsight-events/hindsight/internal/wait"
)

// archive has the rotated files. Method run compresses and removes them; nextName and wake may be
// called concurrently.
type archive struct {
	dir         string
	prefix, ext string // of their names, around the time
	keep        int
	gzip        bool
	fs          fileSystem
	log         *slog.Logger
	wakeUp      chan struct{} // of capacity 1
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
		wakeUp: make(chan struct{}, 1),
	}
}

const (
	// timeLayout has a fixed width, so that names sort by time.
	timeLayout = "20060102T150405.000Z"
	gzSuffix   = ".gz"
	tmpSuffix  = ".gz.tmp"
)

// rotatedFile is a rotated file in one or several forms.
type rotatedFile struct {
	time            time.Time
	plain, gz, temp bool
}

func (a *archive) path(t time.Time) string {
	return filepath.Join(a.dir, a.prefix+t.Format(timeLayout)+a.ext)
}

// list returns the rotated files, oldest first.
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
		if err != nil || t.Format(timeLayout) != rest[:len(timeLayout)] { // Parse accepts a comma
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

// nextName returns the path for the current file when it is rotated. It sorts after all rotated files,
// even if the clock was set back.
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

// wake makes run look for work.
func (a *archive) wake() { wait.Notify(a.wakeUp) }

// run cleans up after each wake, until ctx is done.
func (a *archive) run(ctx context.Context) {
	cleaning := failureLog{log: a.log, failed: "cannot compress or remove rotated files", recovered: "rotated files can be compressed and removed again"}
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-a.wakeUp:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		err := a.clean(ctx)
		if ctx.Err() != nil {
			return
		}
		cleaning.report(err)
		retry.Stop()
		if err != nil {
			retry.Reset(time.Minute)
		}
	}
}

// clean leaves one form of each rotated file, removes the oldest ones beyond keep, and compresses the
// others. It continues after files that it cannot remove.
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
		if f.gz { // complete: it was renamed
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

// compress replaces a file with its compressed form. The file is removed last, so that a crash leaves
// at least one of them.
func (a *archive) compress(ctx context.Context, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("compress %s: %w", path, err)
		}
	}()
	temp := path + tmpSuffix
	if err := a.writeCompressed(ctx, temp, path); err != nil {
		_ = a.fs.Remove(temp) // or the next clean does
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

// contextReader reads until ctx is done.
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

// failureLog logs the first failure of a repeated operation and its recovery, and the failures between
// them at debug.
type failureLog struct {
	log               *slog.Logger
	failed, recovered string
	since             time.Time // of the first failure; zero: the last attempt succeeded
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
