//go:build e2e

// Package e2e runs the built program against a real Kubernetes API server and
// holds what comes out against what was written.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/build"
	"github.com/hindsight-events/hindsight/test/cluster"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(build.Main(m, &binary, "-race"))
}

// program is a running hindsight.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	config string        // path of the configuration, if it has one
	done   chan struct{} // closed when it has ended

	mu     sync.Mutex // guards the rest
	states []state    // of its standard output, in order; not the API server's own
	torn   []string   // lines of it that are none
	log    bytes.Buffer
}

// state is one line of the standard output.
type state struct {
	line  string
	Verb  string
	Event struct {
		Metadata struct {
			UID             string
			Namespace       string
			Name            string
			ResourceVersion string
			Annotations     map[string]string
		}
		Message            string
		Reason             string
		Count              int
		ReportingComponent string
		Source             struct{ Component string }
	}
}

func (s state) key() string { return s.Event.Metadata.UID + "@" + s.Event.Metadata.ResourceVersion }

// start runs hindsight with a configuration, empty for none, until the test
// ends. Its standard output is read.
func start(t *testing.T, kubeconfig, config string) *program {
	t.Helper()
	p := command(t, kubeconfig, config)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.run(func() { p.read(stdout) })
	return p
}

// command prepares hindsight; run starts it.
func command(t *testing.T, kubeconfig, config string) *program {
	t.Helper()
	p := &program{t: t, done: make(chan struct{})}
	args := []string{"run", "--kubeconfig", kubeconfig, "--listen", "127.0.0.1:0"}
	if config != "" {
		p.config = filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(p.config, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", p.config)
	}
	p.cmd = exec.Command(binary, args...)
	return p
}

func (p *program) run(read func()) {
	p.t.Helper()
	p.cmd.Stderr = writer(func(b []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.log.Write(b)
	})
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(read)
	go func() {
		reading.Wait()
		_ = p.cmd.Wait()
		close(p.done)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if p.t.Failed() {
			p.t.Logf("hindsight said\n%s", p.said())
		}
	})
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

func (p *program) read(stdout io.Reader) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if len(line) > 0 {
				p.mu.Lock()
				p.torn = append(p.torn, string(line))
				p.mu.Unlock()
			}
			return
		}
		var s state
		err = json.Unmarshal(line, &s)
		p.mu.Lock()
		switch {
		case err != nil || s.Event.Metadata.UID == "":
			p.torn = append(p.torn, string(line))
		case cluster.ByAPIServer(s.Event.ReportingComponent) || cluster.ByAPIServer(s.Event.Source.Component):
		default:
			s.line = string(line)
			p.states = append(p.states, s)
		}
		p.mu.Unlock()
	}
}

// said returns the log so far.
func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// seen returns the states so far.
func (p *program) seen() []state {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.states[:len(p.states):len(p.states)]
}

// terminate asks the program to end and returns its exit code.
func (p *program) terminate() int {
	p.t.Helper()
	// Right after its start a process has no handler for signals yet.
	p.eventually("hindsight has started", func() bool { return strings.Contains(p.said(), "hindsight starts") })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	return p.exitCode()
}

// exitCode waits for the program to end.
func (p *program) exitCode() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		p.t.Fatal("hindsight has not ended after a minute")
		return 0
	}
}

var address = regexp.MustCompile(`msg="metrics and probes" address=(\S+)`)

// get asks the program itself, such as for "/metrics".
func (p *program) get(path string) (status int, body string) {
	p.t.Helper()
	p.eventually("hindsight listens", func() bool { return address.MatchString(p.said()) })
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address.FindStringSubmatch(p.said())[1]+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// eventually waits until a condition holds, which it has to within a minute and
// a half.
func (p *program) eventually(what string, holds func() bool) {
	p.t.Helper()
	if !p.within(90*time.Second, holds) {
		p.t.Fatalf("still not so after 90 s: %s", what)
	}
}

// within waits until a condition holds, and reports whether it did in time.
func (p *program) within(d time.Duration, holds func() bool) bool {
	deadline := time.Now().Add(d)
	for !holds() {
		if time.Now().After(deadline) || p.t.Context().Err() != nil {
			return false
		}
		pause(p.t.Context(), 50*time.Millisecond)
	}
	return true
}
