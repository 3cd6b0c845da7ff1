// Package stdout writes records to the standard output, a line each, for
// whatever scrapes the container's log.
package stdout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/sink"
)

// Config of a stdout sink.
type Config struct {
	Format format.Format `yaml:"format"`
}

// DefaultConfig is what applies to keys that are not set.
func DefaultConfig() Config { return Config{Format: format.EventRouter} }

// UnmarshalYAML starts from the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Config
	*c = DefaultConfig()
	return unmarshal((*plain)(c))
}

// Sink writes to one stream. What has been written is accepted: nothing says
// more about it.
type Sink struct {
	encoder format.Encoder
	written int    // bytes of the batch that is being sent
	buffer  []byte // what is being written, which may take longer than a Send

	writes     chan []byte   // to the writer goroutine, unbuffered
	results    chan result   // its answers, one each
	closed     chan struct{} // by Close
	inProgress bool          // the answer to a write that has outlasted its Send
}

type result struct {
	n   int
	err error
}

// New returns a sink that writes to w, which nobody else may write to.
func New(c Config, w io.Writer) *Sink {
	s := &Sink{
		encoder: format.Encoder{Format: c.Format, Standalone: true},
		writes:  make(chan []byte),
		results: make(chan result, 1),
		closed:  make(chan struct{}),
	}
	// A write to a pipe that nobody reads never returns, and cannot be called
	// off. It waits in a goroutine of its own, so that Send and the end of the
	// program do not; it is left behind only then.
	go func() {
		for {
			select {
			case b := <-s.writes:
				n, err := w.Write(b)
				s.results <- result{n, err}
			case <-s.closed:
				return
			}
		}
	}()
	return s
}

// Limits are what fits a stream of lines: small writes, one after the other,
// without a deadline.
func Limits() sink.Limits { return sink.Limits{BatchBytes: 64 << 10, WindowBytes: 1 << 20} }

// AppendStream implements sink.Sink: all lines are of one stream.
func (s *Sink) AppendStream(dst []byte, _ *event.Record) []byte { return append(dst, "stdout"...) }

// AppendRecord implements sink.Sink.
func (s *Sink) AppendRecord(dst []byte, r *event.Record) []byte {
	return append(s.encoder.Append(dst, r), '\n')
}

// Send writes the batch. After an error it goes on where it stopped, so that no
// line is torn or written twice. A closed pipe is a permanent error. A write that has
// begun cannot be called off: where nobody reads, Send returns when ctx ends, and the
// next one waits for the same write.
func (s *Sink) Send(ctx context.Context, b *sink.Batch) error {
	for s.inProgress || s.written < len(b.Data) {
		if !s.inProgress {
			s.buffer = append(s.buffer[:0], b.Data[s.written:]...)
			s.writes <- s.buffer
			s.inProgress = true
		}
		if err := s.awaitWrite(ctx); err != nil {
			return err
		}
	}
	s.written = 0
	return nil
}

// awaitWrite waits for the end of the write.
func (s *Sink) awaitWrite(ctx context.Context) error {
	select {
	case r := <-s.results:
		s.inProgress = false
		s.written += r.n
		if r.err == nil && r.n < len(s.buffer) {
			r.err = io.ErrShortWrite
		}
		if r.err == nil {
			return nil
		}
		why := &sink.Error{Err: fmt.Errorf("write stdout: %w", r.err)}
		switch {
		case isClosed(r.err):
			why.Permanent, why.Reason = true, sink.ReasonClosed
		case errors.Is(r.err, syscall.ENOSPC):
			why.Reason = sink.ReasonNoSpace
		}
		return why
	case <-ctx.Done():
		return &sink.Error{Reason: sink.ReasonTimeout, Err: fmt.Errorf("write stdout: nobody reads it: %w", ctx.Err())}
	}
}

// isClosed reports whether the stream will never take another byte.
func isClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, fs.ErrClosed) || errors.Is(err, syscall.EBADF)
}

// Close ends the writer, unless it hangs in a write.
func (s *Sink) Close() error {
	close(s.closed)
	return nil
}
