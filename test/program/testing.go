package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Binary is the path of the hindsight that Main has built.
var Binary string

// Main is for TestMain: it builds hindsight with further arguments of go build, runs the tests, and
// returns the exit code.
func Main(m *testing.M, args ...string) int {
	dir, err := os.MkdirTemp("", "hindsight-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	Binary = filepath.Join(dir, "hindsight")
	if err := Build(context.Background(), Binary, "cmd/hindsight", args...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// ForTest starts hindsight until the end of the test. If the test fails, it logs hindsight's log.
// Binary and a temporary directory are the defaults.
func ForTest(t testing.TB, o Options) *Program {
	t.Helper()
	p, err := Start(withDefaults(t, o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the log of hindsight %s:\n%s", o.Args[0], p.Log())
		}
	})
	return p
}

// Run runs hindsight to its end.
func Run(t testing.TB, o Options) (stdout, stderr string, code int) {
	t.Helper()
	cmd, _, err := Command(t.Context(), withDefaults(t, o))
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), log.String(), cmd.ProcessState.ExitCode()
}

func withDefaults(t testing.TB, o Options) Options {
	t.Helper()
	if o.Binary == "" {
		o.Binary = Binary
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	return o
}

// Output collects what a program writes. The zero value is empty.
type Output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns the output so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
