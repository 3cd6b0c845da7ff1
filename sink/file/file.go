// Package file writes records to a file, a line each, and moves the file away
// when it is large or old enough.
//
// Send returns nil once the lines, and the name of the file they are in, have
// been synced. What a crash leaves behind is put right at the next start: a last
// line without an end that this sink left was never acknowledged; it is cut off,
// and its record comes again, as may at most the batch that it is of. A last line
// without an end that somebody else wrote is kept: it is ended, and lines follow
// behind it. The state in the lock file tells the two apart.
//
// In the directory of events.jsonl there are
//
//	events.jsonl                             what is written to
//	events-20190719T110000.000Z.jsonl        moved away at that time
//	events-20190719T110000.000Z.jsonl.gz     the same, compressed
//	events-20190719T110000.000Z.jsonl.gz.tmp being compressed, or left by a crash
//	events.jsonl.lock                        held with flock by the process that
//	                                         writes; its content is the state
//
// The times are UTC. In the order of their names, the files hold the records as
// they came, even if the clock was set back meanwhile.
//
// Others may move, remove or truncate the file at any time; a new one is begun.
// While the file cannot be moved away, it grows on, and a warning is logged.
// The directory is not made: where a volume is missing, nothing should be
// written into the place where it belongs.
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
	// Path of the file; a relative one is resolved once, when the sink is made.
	Path   string        `yaml:"path"`
	Format format.Format `yaml:"format"`

	// The file is moved away before it grows beyond MaxSize, unless a single
	// line is larger, and once its first line is MaxAge old, even if nothing
	// is being written. An empty file stays. 0: no bound.
	MaxSize quantity.Size     `yaml:"max_size"`
	MaxAge  quantity.Duration `yaml:"max_age"`

	Keep int  `yaml:"keep"` // files that were moved away; 0: all
	Gzip bool `yaml:"gzip"` // those files
}

// DefaultConfig is what applies to keys that are not set.
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

// Check reports what is wrong with the values, by key.
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

// checkRegular returns an error unless the mode is that of a regular file. A pipe
// or a device can be neither synced nor moved away, and a link, as /dev/stdout is
// one, could lead two sinks to one file.
func checkRegular(mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return errors.New("is a directory, want a file")
	}
	return errors.New("is not a regular file; for the standard output, set the destination stdout instead of file")
}

// Limits are what fits a disk: one write and one sync at a time, with what came
// meanwhile in the next. The deadline is for one that has stopped answering,
// such as a network volume whose server is gone.
func Limits() sink.Limits {
	return sink.Limits{BatchBytes: 256 << 10, WindowBytes: 2 << 20, Timeout: time.Minute}
}

// Sink writes to one file.
type Sink struct {
	path    string
	encoder format.Encoder

	// A call to a disk that does not answer cannot be called off. It is made by
	// a goroutine of its own, so that Send need not wait for it.
	batches   chan *sink.Batch // to run, unbuffered
	results   chan error       // what became of them
	resultDue bool             // Send gave up on a batch whose answer is still due

	stop  context.CancelFunc
	ended chan struct{} // once nothing runs any more
}

// New returns a sink, of a configuration without anything wrong. It opens its
// file at once, and again before each batch until that works: what is missing
// now may come.
func New(c Config, log *slog.Logger) (*Sink, error) {
	return newSink(c, osFileSystem{}, log)
}

func newSink(c Config, d fileSystem, log *slog.Logger) (*Sink, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, fmt.Errorf("resolve path %q: %w", c.Path, err)
	}
	log = log.With("path", path)
	a := newArchive(path, c, d, log)
	w := &writer{
		path:     path,
		maxSize:  int64(c.MaxSize),
		maxAge:   time.Duration(c.MaxAge),
		fs:       d,
		archive:  a,
		log:      log,
		boot:     cmp.Or(d.BootID(), rand.Text()), // unknown: each sink may be the first of a boot
		rotation: failureLog{log: log, failed: "the file cannot be moved away and grows on for now", recovered: "the file can be moved away again"},
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

// run does what is done with the file until ctx ends.
func (s *Sink) run(ctx context.Context, w *writer) {
	defer w.close()
	upkeep := failureLog{log: w.log, failed: "the file cannot be written to for now", recovered: "the file can be written to again"}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case b := <-s.batches:
			err := w.write(b)
			if err == nil {
				upkeep.report(nil)
			}
			s.results <- err
			timer.Reset(w.untilMaxAge())
		case <-timer.C:
			err := w.maintain()
			upkeep.report(err)
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

// AppendStream implements sink.Sink: all lines are of one stream.
func (s *Sink) AppendStream(dst []byte, _ *event.Record) []byte { return append(dst, "file"...) }

// AppendRecord implements sink.Sink.
func (s *Sink) AppendRecord(dst []byte, r *event.Record) []byte {
	return append(s.encoder.Append(dst, r), '\n')
}

// Send writes the batch and syncs it. After an error it goes on behind the last
// line that was synced; what was written after that has been cut off.
//
// A write that is under way when ctx ends goes on with the batch. Since the same
// batch comes again, its outcome is that of the next Send.
func (s *Sink) Send(ctx context.Context, b *sink.Batch) error {
	if !s.resultDue {
		select {
		case s.batches <- b:
		case <-ctx.Done():
			return fmt.Errorf("write %s: the disk does not answer: %w", s.path, ctx.Err())
		}
	}
	select {
	case err := <-s.results:
		s.resultDue = false
		return classify(err)
	case <-ctx.Done():
		s.resultDue = true
		return fmt.Errorf("write %s: the disk does not answer: %w", s.path, ctx.Err())
	}
}

func classify(err error) error {
	if err == nil {
		return nil
	}
	why := &sink.Error{Reason: sink.ReasonOther, Err: err}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		why.Reason = sink.ReasonNoSpace
	}
	return why
}

// closeTimeout is how long Close waits for a disk to answer.
const closeTimeout = 5 * time.Second

// Close closes the file and lets go of its lock, unless the disk does not
// answer: then they are left behind.
func (s *Sink) Close() error {
	s.stop()
	if s.resultDue {
		return nil
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("close %s: the disk does not answer", s.path)
	}
}
