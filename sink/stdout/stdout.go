// Package stdout writes records to the standard output, one a line, for a collector of container logs.
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

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Format: format.EventRouter} }

// UnmarshalYAML starts from the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	type plain Config
	*c = DefaultConfig()
	return unmarshal((*plain)(c))
}

// Sink writes to one stream. It counts written bytes as accepted.
type Sink struct {
	encoder format.Encoder
	written int    // bytes of the current batch
	buffer  []byte // of the current write, which may outlast its Send

	writes     chan []byte   // to the writer goroutine, unbuffered
	results    chan result   // from the writer goroutine, one for each write
	closed     chan struct{} // closed by Close
	inProgress bool          // a write has outlasted its Send
}

type result struct {
	n   int
	err error
}

// New returns a sink that writes to w. It must be the only writer.
func New(c Config, w io.Writer) *Sink {
	s := &Sink{
		encoder: format.Encoder{Format: c.Format, Standalone: true},
		writes:  make(chan []byte),
		results: make(chan result, 1),
		closed:  make(chan struct{}),
	}
	// A write to a pipe without a reader blocks and cannot be canceled. A goroutine makes
	// it, so that it blocks neither Send nor the end of the program.
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

// Limits returns the limits of a stream: small writes, one at a time, without a timeout.
func Limits() sink.Limits { return sink.Limits{BatchBytes: 64 << 10, WindowBytes: 1 << 20} }

// AppendStream implements sink.Sink: there is one stream.
func (s *Sink) AppendStream(dst []byte, _ *event.Record) []byte { return append(dst, "stdout"...) }

// AppendRecord implements sink.Sink.
func (s *Sink) AppendRecord(dst []byte, r *event.Record) []byte {
	return append(s.encoder.Append(dst, r), '\n')
}

// Send writes the batch. After an error the next Send continues at the same byte, so that no line is
// torn or written twice. A closed pipe is a permanent error. A write cannot be canceled: if ctx ends
// first, the next Send waits for the same write.
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

// awaitWrite waits for the result of the current write.
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
		sinkErr := &sink.Error{Err: fmt.Errorf("write stdout: %w", r.err)}
		switch {
		case isClosed(r.err):
			sinkErr.Permanent, sinkErr.Reason = true, sink.ReasonClosed
		case errors.Is(r.err, syscall.ENOSPC):
			sinkErr.Reason = sink.ReasonNoSpace
		}
		return sinkErr
	case <-ctx.Done():
		return &sink.Error{Reason: sink.ReasonTimeout, Err: fmt.Errorf("write stdout: the reader does not read: %w", ctx.Err())}
	}
}

// isClosed reports whether the stream was closed for good.
func isClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, fs.ErrClosed) || errors.Is(err, syscall.EBADF)
}

// Close ends the writer goroutine, unless a write blocks it.
func (s *Sink) Close() error {
	close(s.closed)
	return nil
}
