// Package file writes records to a file, one a line, and rotates the file by size and age.
//
// Send returns nil after the lines and the name of their file have been synced. After a crash the
// next start repairs the end of the file. An unfinished last line that this sink wrote is removed:
// its record was not acknowledged, so that it is delivered again, with at most the rest of its
// batch. An unfinished last line of another program is kept and ended with a newline. The state in
// the lock file distinguishes the two.
//
// The directory of events.jsonl has these files:
//
//	events.jsonl                             the current file
//	events-20190719T110000.000Z.jsonl        rotated at that time
//	events-20190719T110000.000Z.jsonl.gz     rotated and compressed
//	events-20190719T110000.000Z.jsonl.gz.tmp being compressed, or left by a crash
//	events.jsonl.lock                        locked with flock by the process that
//	                                         writes; contains the state
//
// Times are in UTC. The order of the names is the order of the records, even if the clock was set
// back.
//
// Other programs may move, remove or truncate the file at any time; the sink starts a new one. If
// a rotation fails, the sink logs a warning and appends to the file beyond its limits. It does not
// create the directory, since nothing should be written to the mount point of a missing volume.
package file

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
)

// Config of a file sink.
type Config struct {
	// Path of the file. New resolves a relative one.
	Path   string        `yaml:"path"`
	Format format.Format `yaml:"format"`

	// The file is rotated before it exceeds MaxSize, unless a single line is larger, and
	// when its first line is MaxAge old, even if nothing is written. An empty file is not
	// rotated. 0: no limit.
	MaxSize quantity.Size     `yaml:"max_size"`
	MaxAge  quantity.Duration `yaml:"max_age"`

	Keep int  `yaml:"keep"` // number of rotated files; 0: all
	Gzip bool `yaml:"gzip"` // compress rotated files
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Format:  format.EventRouter,
		MaxSize: 100 << 20,
		MaxAge:  quantity.Duration(24 * time.Hour),
		Keep:    10,
	}
}

// UnmarshalYAML starts from the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Config
	*c = DefaultConfig()
	return unmarshal((*plain)(c))
}

// Check calls bad for each invalid value with its key.
func (c *Config) Check(bad func(key, format string, args ...any)) {
	switch base := filepath.Base(c.Path); {
	case c.Path == "":
		bad("path", "is needed: the file to write to")
	case base == "." || base == ".." || c.Path[len(c.Path)-1] == '/' || base == string(filepath.Separator):
		bad("path", "%q names a directory, want a file", c.Path)
	default:
		if info, err := os.Lstat(c.Path); err == nil {
			if err := checkRegular(info.Mode()); err != nil {
				bad("path", "%q %w", c.Path, err)
			}
		}
	}
	if c.MaxSize != 0 && c.MaxSize < 1<<10 {
		bad("max_size", "%s is too small; it must be at least 1KiB, or 0 for no bound", c.MaxSize)
	}
	if c.MaxAge != 0 && c.MaxAge < quantity.Duration(time.Second) {
		bad("max_age", "%s is too short; it must be at least 1s, or 0 for no bound", c.MaxAge)
	}
	if c.Keep < 0 {
		bad("keep", "%d is not a number of files; 0 keeps all", c.Keep)
	}
}

// checkRegular returns an error unless a file is regular. Pipes and devices can be neither synced
// nor renamed, and a link, such as /dev/stdout, could make two sinks write to one file.
func checkRegular(mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return errors.New("is a directory, want a file")
	}
	return errors.New("is not a regular file; for the standard output, set the destination stdout instead of file")
}

// Limits returns the limits of a disk: one write and one sync at a time, while the next batch fills.
// The timeout is for a disk that does not respond, such as a network volume whose server is down.
func Limits() sink.Limits {
	return sink.Limits{BatchBytes: 256 << 10, WindowBytes: 2 << 20, Timeout: time.Minute}
}

// Sink writes to one file.
type Sink struct {
	path    string
	encoder format.Encoder

	// A system call cannot be canceled if the disk does not respond. A goroutine makes it,
	// so that Send does not have to wait.
	batches   chan *sink.Batch // to the goroutine, unbuffered
	results   chan error       // from the goroutine, one for each batch
	resultDue bool             // Send returned before the result of its batch

	stop  context.CancelFunc
	ended chan struct{} // closed when all goroutines have ended
}

// New returns a sink for a valid configuration. It opens the file in the background, and retries
// with each batch, since a missing directory may appear later.
func New(c Config, log *slog.Logger) (*Sink, error) {
	return newSink(c, osFileSystem{}, log)
}

func newSink(c Config, fs fileSystem, log *slog.Logger) (*Sink, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, fmt.Errorf("resolve path %q: %w", c.Path, err)
	}
	log = log.With("path", path)
	a := newArchive(path, c, fs, log)
	w := &writer{
		path:     path,
		maxSize:  int64(c.MaxSize),
		maxAge:   time.Duration(c.MaxAge),
		fs:       fs,
		archive:  a,
		log:      log,
		boot:     cmp.Or(fs.BootID(), rand.Text()), // unknown: as after a restart of the machine
		rotation: failureLog{log: log, failed: "cannot rotate the file, it exceeds its limits", recovered: "the file can be rotated again"},
	}
	s := &Sink{
		path:    path,
		encoder: format.Encoder{Format: c.Format, Standalone: true},
		batches: make(chan *sink.Batch),
		results: make(chan error, 1),
		ended:   make(chan struct{}),
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.ended)
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() { a.run(ctx) })
		s.run(ctx, w)
	}()
	return s, nil
}

// run writes batches and rotates the file until ctx is done.
func (s *Sink) run(ctx context.Context, w *writer) {
	defer w.close()
	writing := failureLog{log: w.log, failed: "cannot write to the file", recovered: "the file can be written again"}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case b := <-s.batches:
			err := w.write(b)
			if err == nil {
				writing.report(nil)
			}
			s.results <- err
			timer.Reset(w.untilMaxAge())
		case <-timer.C:
			err := w.maintain()
			writing.report(err)
			if err != nil {
				timer.Reset(time.Minute)
			} else {
				timer.Reset(w.untilMaxAge())
			}
		case <-ctx.Done():
			return
		}
	}
}

// AppendStream implements sink.Sink: there is one stream.
func (s *Sink) AppendStream(dst []byte, _ *event.Record) []byte { return append(dst, "file"...) }

// AppendRecord implements sink.Sink.
func (s *Sink) AppendRecord(dst []byte, r *event.Record) []byte {
	return append(s.encoder.Append(dst, r), '\n')
}

// Send writes a batch and syncs it. After an error, the next Send continues after the last synced
// line; incomplete writes are removed.
//
// If ctx ends during a write, the write continues and its result is that of the next Send, which
// has the same batch.
func (s *Sink) Send(ctx context.Context, b *sink.Batch) error {
	if !s.resultDue {
		select {
		case s.batches <- b:
		case <-ctx.Done():
			return fmt.Errorf("write %s: the disk does not respond: %w", s.path, ctx.Err())
		}
	}
	select {
	case err := <-s.results:
		s.resultDue = false
		return classify(err)
	case <-ctx.Done():
		s.resultDue = true
		return fmt.Errorf("write %s: the disk does not respond: %w", s.path, ctx.Err())
	}
}

func classify(err error) error {
	if err == nil {
		return nil
	}
	sinkErr := &sink.Error{Reason: sink.ReasonOther, Err: err}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		sinkErr.Reason = sink.ReasonNoSpace
	}
	return sinkErr
}

// closeTimeout is how long Close waits for the disk.
const closeTimeout = 5 * time.Second

// Close closes and unlocks the file. It leaves them behind if the disk does not respond.
func (s *Sink) Close() error {
	s.stop()
	if s.resultDue {
		return nil
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("close %s: the disk does not respond", s.path)
	}
}
