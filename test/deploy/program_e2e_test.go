//go:build e2e

package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/hindsight-events/hindsight/test/build"
)

// binary is hindsight, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	os.Exit(build.Main(m, &binary, "-race"))
}

// program is a running hindsight.
type program struct {
	t           *testing.T
	cmd         *exec.Cmd
	stdout, log output
	ended       chan error
}

// start runs hindsight as the pod would, with the environment that the pod gets
// from the downward API, until the test ends.
func start(t *testing.T, kubeconfig, config, namespace string) *program {
	t.Helper()
	p := &program{t: t, ended: make(chan error, 1)}
	p.cmd = exec.Command(binary, "run", "--config", config, "--kubeconfig", kubeconfig, "--listen", "127.0.0.1:0")
	p.cmd.Env = append(os.Environ(), "POD_NAMESPACE="+namespace, "POD_NAME=hindsight-0")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		for range p.ended {
		}
		if t.Failed() {
			t.Logf("hindsight said\n%s", p.log.String())
		}
	})
	return p
}

// end asks the program to end and waits until it has, without an error.
func (p *program) end() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	if err := <-p.ended; err != nil {
		p.t.Errorf("hindsight ended with %v", err)
	}
}

// output is what a program has written so far.
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
