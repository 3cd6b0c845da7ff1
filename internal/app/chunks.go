package app

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hindsight-events/hindsight/internal/input"
)

// readChunks calls visit with each chunk of an input's text, and onPause whenever the input pauses
// for that long. It returns at the end of the input or soon after ctx ends.
func readChunks(ctx context.Context, in io.Reader, pause time.Duration, visit func([]byte) error, onPause func() error) error {
	type chunk struct {
		text []byte
		err  error
	}
	chunks, free := make(chan chunk), make(chan []byte, 2)
	free <- make([]byte, 64<<10)
	free <- make([]byte, 64<<10)
	go func() { // ends with the input, or at the first read after ctx
		text, err := input.TextReader(in)
		for {
			var c chunk
			select {
			case buffer := <-free:
				if c.err = err; err == nil {
					var n int
					n, c.err = text.Read(buffer[:cap(buffer)])
					c.text = buffer[:n]
				}
			case <-ctx.Done():
				return
			}
			select {
			case chunks <- c:
			case <-ctx.Done():
				return
			}
			if c.err != nil {
				return
			}
		}
	}()
	for {
		timer := time.NewTimer(pause)
		select {
		case c := <-chunks:
			timer.Stop()
			if err := visit(c.text); err != nil {
				return err
			}
			switch {
			case errors.Is(c.err, io.EOF):
				return nil
			case c.err != nil:
				return c.err
			}
			free <- c.text
		case <-timer.C:
			if err := onPause(); err != nil {
				return err
			}
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
