package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// cacheVariable is the environment variable with the folder of built binaries; the default is in
// the user's cache folder.
const cacheVariable = "HINDSIGHT_TEST_CACHE"

// progressInterval is the interval of progress messages.
const progressInterval = 30 * time.Second

// module is a nested Go module beside this file. Build builds the tools in its go.mod.
type module struct {
	minutes int // a cold build on two cores takes about this long
}

var modules = map[string]module{
	"kube":         {minutes: 5},
	"victorialogs": {minutes: 1},
}

// Build builds the tools of a nested module ("kube": etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, kubectl) from source, and returns
// their folder. They are cached outside of the checkout, by go.mod, go.sum and Go version, so
// only the first call takes minutes; it reports progress on stderr. Processes may call it
// concurrently: one builds, the others wait.
func Build(ctx context.Context, name string) (string, error) {
	mod, ok := modules[name]
	if !ok {
		return "", fmt.Errorf("build %s: no such module", name)
	}
	source, err := sourceDir(name)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	key, err := buildKey(source)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("build %s: find the cache folder: %w", name, err)
	}
	dir := filepath.Join(cache, name+"-"+key)
	if isDir(dir) {
		return dir, nil
	}

	unlock, err := lock(ctx, filepath.Join(cache, name+".lock"))
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()
	if isDir(dir) { // another process has built it meanwhile
		return dir, nil
	}
	if err := buildInto(ctx, dir, source, name, mod); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return dir, nil
}

// buildInto makes dir, all of it or nothing: a folder under its final name is
// complete. The caller holds the lock.
func buildInto(ctx context.Context, dir, source, name string, mod module) error {
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil { // from a build that was interrupted
		return fmt.Errorf("remove an unfinished build: %w", err)
	}
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(partial)

	tools, err := listTools(ctx, source)
	if err != nil {
		return err
	}
	names := make([]string, len(tools))
	for i, tool := range tools {
		names[i] = binaryName(tool)
	}
	progressf("building %s from source into %s: about %d min the first time", strings.Join(names, ", "), dir, mod.minutes)
	start := time.Now()
	for i, tool := range tools {
		if err := buildTool(ctx, source, tool, filepath.Join(partial, names[i])); err != nil {
			return err
		}
	}
	if err := os.Rename(partial, dir); err != nil {
		return err
	}
	progressf("built %s in %v", name, time.Since(start).Round(time.Second))
	return nil
}

func buildTool(ctx context.Context, source, tool, output string) error {
	name := filepath.Base(output)
	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", output, tool)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out

	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			elapsed := time.Since(start).Round(time.Second)
			if err != nil {
				return fmt.Errorf("go build %s, after %v: %w\n%s", tool, elapsed, err, out.String())
			}
			progressf("  %s: built in %v", name, elapsed)
			return nil
		case <-ticker.C:
			progressf("  %s: still building, %v", name, time.Since(start).Round(time.Second))
		}
	}
}

// listTools returns the import paths of the tools of the module in dir.
func listTools(ctx context.Context, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f", "{{.ImportPath}}", "tool")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr // downloads of modules are reported there
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list tool: %w", err)
	}
	tools := strings.Fields(string(out))
	if len(tools) == 0 {
		return nil, errors.New("go list tool: the module names no tools")
	}
	return tools, nil
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// binaryName returns the file name of the tool of an import path.
func binaryName(importPath string) string {
	if strings.HasPrefix(importPath, "go.etcd.io/etcd/server/") {
		return "etcd" // not "server", as go build would have it
	}
	if majorVersion.MatchString(path.Base(importPath)) {
		importPath = path.Dir(importPath)
	}
	return path.Base(importPath)
}

// buildKey is the cache key of a build.
func buildKey(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// sourceDir is the folder of a nested module. It cannot be embedded: go:embed
// does not reach into another module.
func sourceDir(name string) (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("this program does not know where its source is: it was built with -trimpath")
	}
	return filepath.Join(filepath.Dir(file), name), nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv(cacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "hindsight"), nil
}

// lock takes an exclusive lock that the operating system releases if this
// process dies. It waits until ctx ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if first {
			progressf("waiting for another process that builds (it holds %s)", path)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
