package app

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		go func() {
			_, _ = io.WriteString(out, "line\n")
			time.Sleep(2500 * time.Millisecond)
			_, _ = io.WriteString(out, "another\n")
			_, _ = io.WriteString(out, "third")
			out.Close()
		}()
		var got []string
		err := readChunks(t.Context(), in, time.Second,
			func(chunk []byte) error { got = append(got, string(chunk)); return nil },
			func() error { got = append(got, "pause"); return nil })
		got = slices.DeleteFunc(got, func(s string) bool { return s == "" }) // at the end
		if want := []string{"line\n", "pause", "pause", "another\n", "third"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	})
}

func TestReadChunksReturnsWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		defer out.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := readChunks(ctx, in, time.Second, func([]byte) error { return nil }, func() error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
