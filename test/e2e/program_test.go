//go:build e2e

// Package e2e runs the built program against a real Kubernetes API server and
// compares its output with the Events that were written.
package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

func TestMain(m *testing.M) {
	os.Exit(program.Main(m, "-race"))
}

// running is a started hindsight.
type running struct {
	*program.Program
	*states
	t *testing.T
}

// start runs hindsight with a configuration, empty for none, until the test
// ends. Its standard output is read.
func start(t *testing.T, kubeconfig, config string) *running {
	t.Helper()
	out := &states{}
	return startWith(t, kubeconfig, config, out, out)
}

// startWith is start with another standard output and more arguments.
func startWith(t *testing.T, kubeconfig, config string, stdout io.Writer, out *states, args ...string) *running {
	t.Helper()
	p := program.ForTest(t, program.Options{
		Args: append([]string{"run", "--kubeconfig", kubeconfig}, args...), Config: config, Stdout: stdout,
	})
	return &running{p, out, t}
}

// get requests a path of hindsight's own server, such as "/metrics".
func (p *running) get(path string) (status int, body string) {
	p.t.Helper()
	status, body, err := p.Get(p.t.Context(), path)
	if err != nil {
		p.t.Fatal(err)
	}
	return status, body
}

func (p *running) untilReady() {
	p.t.Helper()
	if err := p.WaitUntilReady(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// terminate sends SIGTERM and returns the exit code.
func (p *running) terminate() int {
	p.t.Helper()
	code, err := p.Stop(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// exitCode waits for the end of the program.
func (p *running) exitCode() int {
	p.t.Helper()
	code, err := p.ExitCode(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// untilLogged waits until the log contains a text.
func (p *running) untilLogged(text string) {
	p.t.Helper()
	wait.Until(p.t, "the log contains "+text, func() bool { return p.Logged(text) })
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

// states parses a standard output.
type states struct {
	mu   sync.Mutex // guards the rest
	all  []state    // in order, without the API server's own Events
	torn []string   // other lines
	rest []byte     // an incomplete line
}

func (s *states) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, b...)
	for {
		line, rest, ended := bytes.Cut(s.rest, []byte("\n"))
		if !ended {
			return len(b), nil
		}
		s.rest = rest
		next := state{line: string(line) + "\n"}
		switch err := json.Unmarshal(line, &next); {
		case err != nil || next.Event.Metadata.UID == "":
			s.torn = append(s.torn, next.line)
		case cluster.ByAPIServer(next.Event.ReportingComponent) || cluster.ByAPIServer(next.Event.Source.Component):
		default:
			s.all = append(s.all, next)
		}
	}
}

// seen returns the states so far.
func (s *states) seen() []state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[:len(s.all):len(s.all)]
}

// tornLines returns the lines that are not a state, and an incomplete last one.
func (s *states) tornLines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	torn := s.torn[:len(s.torn):len(s.torn)]
	if len(s.rest) > 0 {
		torn = append(torn, string(s.rest))
	}
	return torn
}
