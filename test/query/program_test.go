//go:build e2e

// Package query runs hindsight query against a real Loki and against files, and compares its output
// with the Events that were stored.
package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

func TestMain(m *testing.M) {
	os.Exit(program.Main(m))
}

// environment of the program: a fixed time zone, and no kubeconfig.
func environment(home string) []string {
	return []string{"TZ=Europe/Berlin", "HOME=" + home, "KUBECONFIG=" + filepath.Join(home, "absent")}
}

// hindsight runs a command to its end.
func hindsight(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return program.Run(t, program.Options{Args: args, Env: environment(t.TempDir()), Stdin: strings.NewReader(stdin)})
}

// runQuery runs hindsight query, which must succeed, and returns the lines of its output.
func runQuery(t *testing.T, args ...string) []string {
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

// configure writes a configuration with one sink and returns its path.
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

// outage returns the Events of the recorded outage in order of time, shifted so that the newest is
// of now.
func outage(t *testing.T) []corev1.Event {
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
		t.Fatalf("the recorded outage has %d Events", len(events))
	}
	return events
}
