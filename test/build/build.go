// Package build builds Hindsight for tests that run it as a process of its own.
package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main is for TestMain: it builds the program with further flags of go build, if
// any, sets binary to its path, runs the tests, and returns their exit code.
func Main(m *testing.M, binary *string, flags ...string) int {
	dir, err := os.MkdirTemp("", "hindsight-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*binary = filepath.Join(dir, "hindsight")
	args := append([]string{"build", "-o", *binary}, flags...)
	compile := exec.Command("go", append(args, "github.com/hindsight-events/hindsight/cmd/hindsight")...)
	compile.Stdout, compile.Stderr = os.Stderr, os.Stderr
	if err := compile.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "build hindsight: %v\n", err)
		return 1
	}
	return m.Run()
}
