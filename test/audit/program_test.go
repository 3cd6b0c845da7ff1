//go:build e2e

// Package audit lets hindsight audit check what hindsight run has shipped from a
// real API server to a real Loki and to files, and copies of that with faults.
package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/build"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(build.Main(m, &binary, "-race"))
}

// result is what an audit says, as JSON.
type result struct {
	code           int
	stdout, stderr string

	Compared, Found, Missing, Repeated, Mistimed, Altered int
	Explained                                             map[string]int
	Findings                                              []finding
}

type finding struct {
	Finding, Why, Detail, Namespace, Name, UID, Version string
}

// audit runs hindsight audit to its end.
func audit(t *testing.T, args ...string) (r result) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"audit"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r.code, r.stdout, r.stderr = cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
	if strings.HasPrefix(r.stdout, "{") {
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("%v: %s", err, r.stdout)
		}
	}
	return r
}

// want checks the exit code and how many findings there are of each kind.
func (r result) want(t *testing.T, code int, findings map[string]int) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s", r.code, code, r.stderr)
	}
	got := map[string]int{}
	for _, f := range r.Findings {
		got[f.Finding]++
	}
	explained := 0
	for _, n := range r.Explained {
		explained += n
	}
	for kind, n := range map[string]int{
		"missing": r.Missing, "repeated": r.Repeated, "mistimed": r.Mistimed, "altered": r.Altered, "explained": explained,
	} {
		if got[kind] != n || n != findings[kind] {
			t.Errorf("%d %s, and %d such findings; want %d", n, kind, got[kind], findings[kind])
		}
	}
	if t.Failed() {
		t.Logf("%s%s", r.stdout[:min(len(r.stdout), 4000)], r.stderr)
	}
}

// finds checks that something is said of an Event.
func (r result) finds(t *testing.T, kind string, e *corev1.Event, detail string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Finding == kind && f.UID == string(e.UID) {
			if f.Version != e.ResourceVersion || f.Name != e.Name || f.Namespace != e.Namespace || !strings.Contains(f.Detail, detail) {
				t.Errorf("%+v, want version %s and %q", f, e.ResourceVersion, detail)
			}
			return
		}
	}
	t.Errorf("it is not said that %s/%s, version %s, is %s", e.Namespace, e.Name, e.ResourceVersion, kind)
}

// program is a hindsight that runs.
type program struct {
	cmd   *exec.Cmd
	lines chan string   // of its standard output
	done  chan struct{} // closed when it has ended

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

// Write takes what it says on its standard error.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// start runs hindsight until the test ends.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(binary, args...), lines: make(chan string), done: make(chan struct{})}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	go func() {
		in := bufio.NewReader(stdout)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			select {
			case p.lines <- line:
			case <-ctx.Done():
			}
		}
		_, _ = io.Copy(io.Discard, in)
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("hindsight %s said\n%s", args[0], p.said())
		}
	})
	return p
}

// ship runs hindsight, whose standard output is empty.
func ship(t *testing.T, args ...string) {
	t.Helper()
	start(t, args...)
}

// line is the next of the standard output.
func (p *program) line(t *testing.T) string {
	t.Helper()
	select {
	case line := <-p.lines:
		return line
	case <-p.done:
		t.Fatal("it has ended")
	case <-time.After(2 * time.Minute):
		t.Fatal("it has said nothing for two minutes")
	}
	return ""
}

func (p *program) exitCode(t *testing.T) int {
	t.Helper()
	for {
		select {
		case <-p.lines:
		case <-p.done:
			return p.cmd.ProcessState.ExitCode()
		case <-time.After(time.Minute):
			t.Fatal("it has not ended after a minute")
		}
	}
}

// eventually waits until a condition holds, which it has to within three minutes.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after three minutes: %s", what)
		}
	}
}
