package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBinaryName(t *testing.T) {
	for importPath, want := range map[string]string{
		"go.etcd.io/etcd/server/v3":                                 "etcd",
		"k8s.io/kubernetes/cmd/kube-apiserver":                      "kube-apiserver",
		"github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs": "victoria-logs",
		"github.com/prometheus/prometheus/v3":                       "prometheus",
	} {
		if got := binaryName(importPath); got != want {
			t.Errorf("binaryName(%q) = %q, want %q", importPath, got, want)
		}
	}
}

func TestBuildUsesWhatIsComplete(t *testing.T) {
	t.Setenv(cacheVariable, t.TempDir())
	source, err := sourceDir("kube")
	if err != nil {
		t.Fatal(err)
	}
	key, err := buildKey(source)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(cache, "kube-"+key)
	if err := os.Mkdir(want, 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := Build(t.Context(), "kube")
	if err != nil || got != want {
		t.Errorf("Build = %q, %v, want %q", got, err, want)
	}
}

func TestBuildKeyFollowsTheModule(t *testing.T) {
	dir := t.TempDir()
	keys := make(map[string]bool)
	for _, files := range [][2]string{{"module a", ""}, {"module b", ""}, {"module a", "sum"}} {
		write(t, filepath.Join(dir, "go.mod"), files[0])
		write(t, filepath.Join(dir, "go.sum"), files[1])
		key, err := buildKey(dir)
		if err != nil {
			t.Fatal(err)
		}
		keys[key] = true
	}
	if len(keys) != 3 {
		t.Errorf("three modules have %d keys", len(keys))
	}
}

func TestLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v, want the end of the context", err)
	}
	unlock()
	unlock, err = lock(t.Context(), path)
	if err != nil {
		t.Fatalf("lock after the release: %v", err)
	}
	unlock()
}

func TestProcessThatEndsTooEarlySaysWhy(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := StartProcess("shell", log, "/bin/sh", "-c", "echo no such disk; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = p.WaitReady(t.Context(), func(context.Context) error { return errors.New("connection refused") })
	if err == nil || !strings.Contains(err.Error(), "no such disk") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error is %v, want the end of the log and the exit status", err)
	}
}

func TestPausedProcessIsKilled(t *testing.T) {
	p, err := StartProcess("sleep", filepath.Join(t.TempDir(), "log"), "/bin/sleep", "100")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if err := p.Resume(); err == nil {
		t.Error("a killed process was resumed")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
