//go:build e2e

package query

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// follow starts hindsight query -w. stop sends SIGINT and returns the exit code.
func follow(t *testing.T, args ...string) (stdout *program.Output, log *program.Program, stop func() int) {
	t.Helper()
	stdout = &program.Output{}
	p := program.ForTest(t, program.Options{
		Args: append([]string{"query", "-w", "-n", "made", "-o", "name"}, args...), Env: environment(t.TempDir()), Stdout: stdout,
	})
	return stdout, p, func() int {
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		code, err := p.ExitCode(t.Context())
		if err != nil {
			t.Error(err)
		}
		return code
	}
}

// batch returns ten Events of the current time.
func batch(from int) (events []corev1.Event) {
	for i := from; i < from+10; i++ {
		events = append(events, made(i, time.Now(), fmt.Sprint(i+1), "now"))
	}
	return events
}

// waitForRows waits until the first n Events are printed.
func waitForRows(t *testing.T, description string, o *program.Output, n int) {
	t.Helper()
	wait.Until(t, description, func() bool {
		for i := range n {
			if !strings.Contains(o.String(), fmt.Sprintf("event/e-%06d\n", i)) {
				return false
			}
		}
		return true
	})
}

// checkRows checks that n Events were printed once.
func checkRows(t *testing.T, o *program.Output, n int) {
	t.Helper()
	if lines := strings.Count(o.String(), "\n"); lines != n {
		t.Errorf("%d rows, want each of %d once:\n%s", lines, n, o)
	}
}

// TestFollowLoki checks that each Event is printed once, also one that was stored while Loki or the
// connection was down.
func TestFollowLoki(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	config := configure(t, lokiSink(l, ""))
	store(t, config, batch(0))
	stdout, log, stop := follow(t, "--config", config)
	waitForRows(t, "stored Events are printed", stdout, 10)
	store(t, config, batch(10))
	waitForRows(t, "new Events are printed", stdout, 20)

	l.Kill()
	wait.Until(t, "the lost connection is reported", func() bool { return log.Logged("retrying") })
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	store(t, config, batch(20))
	waitForRows(t, "Events stored after a restart of Loki are printed", stdout, 30)
	wait.Until(t, "the recovery is reported", func() bool { return log.Logged("loki is reachable again") })
	store(t, config, batch(30))
	waitForRows(t, "Events stored after the recovery are printed", stdout, 40)
	if code := stop(); code != 130 {
		t.Errorf("exit code %d after SIGINT, want 130", code)
	}
	checkRows(t, stdout, 40)
}

func TestFollowFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	config := configure(t, "file: {path: "+path+", max_size: 2KiB, keep: 0, gzip: true}")
	store(t, config, batch(0))
	stdout, _, stop := follow(t, "--file", path)
	for n := 10; n < 50; n += 10 {
		waitForRows(t, "written Events are printed", stdout, n)
		store(t, config, batch(n))
	}
	waitForRows(t, "all Events are printed", stdout, 50)
	if code := stop(); code != 130 {
		t.Errorf("exit code %d after SIGINT, want 130", code)
	}
	checkRows(t, stdout, 50)
}

// TestKubectlPlugin runs the program as a plugin that kubectl finds in PATH.
func TestKubectlPlugin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plugin := filepath.Join(dir, "kubectl-hindsight")
	if err := os.Symlink(program.Binary, plugin); err != nil {
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
		"query":            {[]string{"--file", path, "--for", "pod/pod-000003", "-o", "name"}, "event/e-000003\n"},
		"another command":  {[]string{"version"}, "hindsight "},
		"help as a plugin": {[]string{"--help"}, "kubectl hindsight -n prod --for pod/web-0"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), append([]string{"hindsight"}, c.args...)...)
			cmd.Env = append(append(os.Environ(), environment(dir)...), "KUBECONFIG="+kubeconfig, "PATH="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s\nwant %s", err, out, c.want)
			}
		})
	}
}
