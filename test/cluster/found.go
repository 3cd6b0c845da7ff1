package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// foundVersionTimeout bounds how long a program may take to print its version.
const foundVersionTimeout = 30 * time.Second

// ErrNotInstalled is wrapped by the errors of FindLoki and FindPromtail if the
// environment names no binary and none is in PATH.
var ErrNotInstalled = errors.New("is not installed")

// Found is a program that the tests do not build but find on the machine.
type Found struct {
	Path    string
	Version string
}

// FindLoki returns the Loki that tests run: the binary that HINDSIGHT_TEST_LOKI
// names, else loki in PATH. It runs the binary once to learn its version. If
// there is none, the error wraps ErrNotInstalled; a binary that is named
// but missing, or does not run, is another error. It is safe for concurrent use.
func FindLoki(ctx context.Context) (Found, error) { return find(ctx, "loki") }

// FindPromtail is FindLoki for HINDSIGHT_TEST_PROMTAIL and promtail in PATH.
func FindPromtail(ctx context.Context) (Found, error) { return find(ctx, "promtail") }

// foundVariable is the environment variable that names the binary of a program.
func foundVariable(program string) string { return "HINDSIGHT_TEST_" + strings.ToUpper(program) }

func find(ctx context.Context, program string) (Found, error) {
	variable := foundVariable(program)
	named := os.Getenv(variable)
	path, err := exec.LookPath(program)
	switch {
	case strings.ContainsRune(named, filepath.Separator) && !filepath.IsAbs(named):
		// Each test runs in the directory of its package.
		return Found{}, fmt.Errorf("%s is the relative path %q; set an absolute one", variable, named)
	case named != "":
		if path, err = exec.LookPath(named); err != nil {
			return Found{}, fmt.Errorf("%s does not name a program: %w", variable, err)
		}
	case errors.Is(err, exec.ErrNotFound):
		return Found{}, fmt.Errorf("%s %w: %s is not set and there is no %s in PATH; CONTRIBUTING.md describes how to get one",
			program, ErrNotInstalled, variable, program)
	case err != nil:
		return Found{}, fmt.Errorf("find %s: %w", program, err)
	}
	version, err := versionOf(ctx, path)
	if err != nil {
		return Found{}, fmt.Errorf("%s does not run: %w", path, err)
	}
	return Found{Path: path, Version: version}, nil
}

// versions caches the results of versionOf by path.
var versions struct {
	sync.Mutex
	of map[string]string
}

// versionLine matches the first line that programs of the Prometheus family print,
// such as "loki, version 3.7.8 (branch: HEAD, revision: 65e30f8)".
var versionLine = regexp.MustCompile(`, version (\S*) ?\(branch: [^,]*, revision: ([^)]*)\)`)

// versionOf runs a program with -version. Development builds may have a revision
// alone, or neither.
func versionOf(ctx context.Context, path string) (string, error) {
	versions.Lock()
	defer versions.Unlock()
	if version, known := versions.of[path]; known {
		return version, nil
	}
	ctx, cancel := context.WithTimeout(ctx, foundVersionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("-version: %w: %s", err, strings.TrimSpace(string(out)))
	}
	version := "of an unknown version"
	if m := versionLine.FindStringSubmatch(string(out)); m != nil {
		switch {
		case m[1] != "":
			version = m[1]
		case m[2] != "" && m[2] != "unknown":
			version = "of revision " + m[2]
		}
	}
	if versions.of == nil {
		versions.of = map[string]string{}
	}
	versions.of[path] = version
	return version, nil
}
