//go:build e2e

package query

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
)

type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// follow runs hindsight query -w until end is called, which returns the exit
// code after SIGINT.
func follow(t *testing.T, args ...string) (stdout, stderr *output, end func() int) {
	t.Helper()
	stdout, stderr = &output{}, &output{}
	cmd := command(t.Context(), t.TempDir(), append([]string{"query", "-w", "-n", "made", "-o", "name"}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return stdout, stderr, func() int {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("standard error:\n%s", stderr)
		}
		return cmd.ProcessState.ExitCode()
	}
}

// batch makes ten Events of now.
func batch(from int) (events []corev1.Event) {
	for i := from; i < from+10; i++ {
		events = append(events, made(i, time.Now(), fmt.Sprint(i+1), "now"))
	}
	return events
}

func all(n int) func(*output) bool {
	return func(o *output) bool {
		for i := range n {
			if !strings.Contains(o.String(), fmt.Sprintf("event/e-%06d\n", i)) {
				return false
			}
		}
		return true
	}
}

// once checks that each of n was printed, and no more than once.
func once(t *testing.T, o *output, n int) {
	t.Helper()
	if lines := strings.Count(o.String(), "\n"); lines != n {
		t.Errorf("%d rows, want each of %d once:\n%s", lines, n, o)
	}
}

// What is stored while it is followed is shown once, also what was stored while
// Loki or the connection to it was down.
func TestFollowLoki(t *testing.T) {
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	config := configure(t, lokiSink(l, ""))
	store(t, config, batch(0))
	stdout, stderr, end := follow(t, "--config", config)
	eventually(t, "what was there is shown", func() bool { return all(10)(stdout) })
	store(t, config, batch(10))
	eventually(t, "what comes is shown", func() bool { return all(20)(stdout) })

	l.Kill()
	eventually(t, "it is said that Loki is gone", func() bool { return strings.Contains(stderr.String(), "trying again") })
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	store(t, config, batch(20))
	eventually(t, "what came after a restart is shown", func() bool { return all(30)(stdout) })
	eventually(t, "it is said that Loki is back", func() bool { return strings.Contains(stderr.String(), "loki answers again") })
	store(t, config, batch(30))
	eventually(t, "what comes then is shown", func() bool { return all(40)(stdout) })
	if code := end(); code != 130 {
		t.Errorf("exit code %d after SIGINT, want 130", code)
	}
	once(t, stdout, 40)
}

func TestFollowFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	config := configure(t, "file: {path: "+path+", max_size: 2KiB, keep: 0, gzip: true}")
	store(t, config, batch(0))
	stdout, _, end := follow(t, "--file", path)
	for n := 10; n < 50; n += 10 {
		eventually(t, "what was written is shown", func() bool { return all(n)(stdout) })
		store(t, config, batch(n))
	}
	eventually(t, "all is shown", func() bool { return all(50)(stdout) })
	if code := end(); code != 130 {
		t.Errorf("exit code %d after SIGINT, want 130", code)
	}
	once(t, stdout, 50)
}

// As kubectl finds it on the PATH.
func TestKubectlPlugin(t *testing.T) {
	dir := t.TempDir()
	plugin := filepath.Join(dir, "kubectl-hindsight")
	if err := os.Symlink(binary, plugin); err != nil {
		t.Fatal(err)
	}
	bin, err := cluster.Build(t.Context(), "kube")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "events.jsonl")
	store(t, configure(t, "file: {path: "+path+"}"), batch(0))
	kubeconfig := filepath.Join(dir, "kubeconfig")
	const config = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: x, namespace: made}}], clusters: [{name: x, cluster: {server: "http://127.0.0.1:1"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"it asks":                    {[]string{"--file", path, "--for", "pod/pod-000003", "-o", "name"}, "event/e-000003\n"},
		"it has other commands":      {[]string{"version"}, "hindsight "},
		"its help speaks as kubectl": {[]string{"--help"}, "kubectl hindsight -n prod --for pod/web-0"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t.Context(), dir)
			cmd.Path, cmd.Args = filepath.Join(bin, "kubectl"), append([]string{"kubectl", "hindsight"}, c.args...)
			cmd.Env = append(cmd.Env, "KUBECONFIG="+kubeconfig, "PATH="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s\nwant %s", err, out, c.want)
			}
		})
	}
}
