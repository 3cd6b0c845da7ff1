//go:build e2e

package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// LogQL is checked with Grafana's grammar, an npm package. Where it cannot be had, the test is
// skipped.
func TestWithGrafanaPackages(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		cluster.SkipWithout(t, "npm", "npm is not installed, so LogQL is not checked")
	}
	dir := filepath.Join(t.TempDir(), "logql")
	if err := copyDir(dir, "logql"); err != nil {
		t.Fatal(err)
	}
	if out, err := npm(t, dir, nil, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"); err != nil {
		cluster.SkipWithout(t, "npm", fmt.Sprintf("npm cannot install the packages of test/observe/logql, so LogQL is not checked: npm ci: %v\n%s", err, out))
	}
	version, err := npm(t, dir, nil, "--version")
	if err != nil {
		t.Fatalf("npm --version: %v\n%s", err, version)
	}
	cluster.CountRan(t, "npm", strings.TrimSpace(string(version)))
	logQLParses(t, dir)
}

// npm runs npm in a folder and returns its standard output, or all of its output if it fails.
func npm(t *testing.T, dir string, stdin io.Reader, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir, cmd.Stdin = dir, stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		return append(stderr.Bytes(), stdout.Bytes()...), err
	}
	return stdout.Bytes(), nil
}

// copyDir copies a module without node_modules.
func copyDir(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.Name() == "node_modules":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		data, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(filepath.Join(to, name), data, 0o644))
	})
}
