//go:build e2e

// Package query asks the built program about Events in a real Loki and in files,
// and holds its answers against what was put there.
package query

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/build"
	"github.com/hindsight-events/hindsight/test/cluster"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(build.Main(m, &binary))
}

// hindsight runs a command to its end, in a time zone of its own and without a
// kubeconfig.
func hindsight(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, log bytes.Buffer
	cmd := command(t.Context(), t.TempDir(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &log
	err := cmd.Run()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	return out.String(), log.String(), cmd.ProcessState.ExitCode()
}

func command(ctx context.Context, home string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "TZ=Europe/Berlin", "HOME="+home, "KUBECONFIG="+filepath.Join(home, "absent"))
	return cmd
}

// ask runs hindsight query, which has to succeed, and returns the lines of its
// answer.
func ask(t *testing.T, args ...string) []string {
	t.Helper()
	stdout, stderr, code := hindsight(t, "", append([]string{"query"}, args...)...)
	if code != 0 {
		t.Fatalf("hindsight query %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	if stdout == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
}

// store replays Events through a configuration.
func store(t *testing.T, config string, events []corev1.Event) {
	t.Helper()
	var in bytes.Buffer
	for i := range events {
		e := events[i]
		e.Kind, e.APIVersion = "Event", "v1"
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(b, '\n'))
	}
	if _, stderr, code := hindsight(t, in.String(), "replay", "-", "--config", config); code != 0 {
		t.Fatalf("hindsight replay: exit code %d: %s", code, stderr)
	}
}

// configure writes a configuration of one sink and returns its path.
func configure(t *testing.T, sink string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("cluster: test\nmax_streams: 20000\nsinks:\n  - name: a\n    "+sink+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func lokiSink(l *cluster.Loki, more string) string {
	return fmt.Sprintf("loki: {url: %s, max_rate: 0%s}", l.URL(), more)
}

// recorded returns the Events of the recorded outage, moved so that the newest
// is of now, in order of time.
func recorded(t *testing.T) []corev1.Event {
	t.Helper()
	stdout, stderr, code := hindsight(t, "", "replay", "../../examples/outage/events.json", "--shift-to-now")
	if code != 0 {
		t.Fatalf("hindsight replay: exit code %d: %s", code, stderr)
	}
	var events []corev1.Event
	for line := range strings.Lines(stdout) {
		var l struct{ Event corev1.Event }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		events = append(events, l.Event)
	}
	if len(events) < 100 {
		t.Fatalf("%d Events were recorded", len(events))
	}
	return events
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after 90 s: %s", what)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}
