//go:build unix

package main

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A signal ends the program while it waits for its configuration, here from a pipe without a
// writer.
func TestSignalWhileReadingTheConfiguration(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"check"}, {"run"}, {"replay", "-"}} {
		ctx, terminate := context.WithCancel(t.Context())
		ended := make(chan int)
		var stdout, stderr buffer
		go func() {
			ended <- execute(ctx, append(command, "--config", pipe), strings.NewReader(""), &stdout, &stderr)
		}()
		terminate()
		if code := <-ended; code != exitInterrupted || stdout.String() != "" {
			t.Errorf("%v: exit code %d, want %d; stdout %q, stderr %q", command, code, exitInterrupted, stdout.String(), stderr.String())
		}
	}
	// End the goroutine that still reads from the pipe.
	f, err := syscall.Open(pipe, syscall.O_RDWR|syscall.O_NONBLOCK, 0)
	if err == nil {
		syscall.Close(f)
	}
}
