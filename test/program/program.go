// Package program runs the real hindsight in tests and benchmarks: it builds the binary, starts it
// with a configuration, and reads its log, output, metrics and exit code.
package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

const (
	startTimeout   = time.Minute
	stopTimeout    = time.Minute
	requestTimeout = 10 * time.Second
)

// Options describe one start of hindsight.
type Options struct {
	Binary string   // its path, see Build and Main
	Dir    string   // an existing directory for the configuration and the log
	Log    string   // the file of standard error; empty: hindsight.log in Dir
	Args   []string // a command and its flags
	Config string   // the text of a configuration file; empty: none
	Env    []string // more environment variables
	Prefix []string // a command that runs hindsight, such as a profiler
	Stdin  io.Reader
	Stdout io.Writer // nil: the log, with standard error
}

// Program is a started hindsight. It is safe for concurrent use.
type Program struct {
	*cluster.Process
	ConfigPath string // empty without a configuration
	LogPath    string
	serves     bool // the command is run, which logs and handles signals
}

// Command returns the command of o, which is killed at the end of ctx. It writes the configuration
// to a file.
func Command(ctx context.Context, o Options) (cmd *exec.Cmd, configPath string, err error) {
	command := append(append([]string{}, o.Prefix...), o.Binary)
	command = append(command, o.Args...)
	if o.Config != "" {
		configPath = filepath.Join(o.Dir, "config.yaml")
		if err := os.WriteFile(configPath, []byte(o.Config), 0o644); err != nil {
			return nil, "", fmt.Errorf("write the configuration: %w", err)
		}
		command = append(command, "--config", configPath)
	}
	cmd = exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.Stdin, cmd.Stdout = o.Stdin, o.Stdout
	return cmd, configPath, nil
}

// Start starts hindsight, which runs until it ends by itself or by a method. The command run listens
// on a free loopback port (see Address), unless Args or Config name an address.
func Start(o Options) (*Program, error) {
	serves := len(o.Args) > 0 && o.Args[0] == "run"
	if serves && !strings.Contains(strings.Join(o.Args, " "), "--listen") && !strings.Contains(o.Config, "listen:") {
		o.Args = append(append([]string{}, o.Args...), "--listen", "127.0.0.1:0")
	}
	cmd, configPath, err := Command(context.Background(), o)
	if err != nil {
		return nil, err
	}
	log := cmp.Or(o.Log, filepath.Join(o.Dir, "hindsight.log"))
	process, err := cluster.StartCommand("hindsight", log, cmd)
	if err != nil {
		return nil, err
	}
	return &Program{Process: process, ConfigPath: configPath, LogPath: log, serves: serves}, nil
}

// ReplaceConfig replaces the configuration file at once, as a kubelet does.
func (p *Program) ReplaceConfig(text string) error {
	next := p.ConfigPath + ".next"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(next, p.ConfigPath)
}

// Log returns the log so far.
func (p *Program) Log() string {
	text, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Logged reports whether the log contains a text.
func (p *Program) Logged(text string) bool { return strings.Contains(p.Log(), text) }

// started waits until the log shows that the process handles signals.
func (p *Program) started(ctx context.Context) error {
	return p.WaitReady(ctx, func(context.Context) error {
		if p.serves && p.Log() == "" {
			return errors.New("it has logged nothing yet")
		}
		return nil
	})
}

// ExitCode waits for the end of the process.
func (p *Program) ExitCode(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, fmt.Errorf("hindsight has not ended within %v", stopTimeout))
	defer cancel()
	select {
	case <-p.Done():
		return p.Exited().ExitCode(), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Stop sends SIGTERM and returns the exit code, also if the process has ended already.
func (p *Program) Stop(ctx context.Context) (int, error) {
	if err := p.started(ctx); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := p.Terminate(ctx); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	return p.ExitCode(ctx)
}

// listening finds the address of the metrics and probes in the log.
var listening = regexp.MustCompile(`\baddress=(127\.0\.0\.1:\d+)`)

// Address waits until hindsight listens, and returns the address of its metrics and probes.
func (p *Program) Address(ctx context.Context) (string, error) {
	var address string
	err := p.WaitReady(ctx, func(context.Context) error {
		m := listening.FindStringSubmatch(p.Log())
		if m == nil {
			return errors.New("it does not listen yet")
		}
		address = m[1]
		return nil
	})
	return address, err
}

// Get requests a path of hindsight's own server, such as "/metrics", once it listens.
func (p *Program) Get(ctx context.Context, path string) (status int, body string, err error) {
	address, err := p.Address(ctx)
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}

// WaitUntilReady waits until /readyz answers 200.
func (p *Program) WaitUntilReady(ctx context.Context) error {
	return p.WaitReady(ctx, func(ctx context.Context) error {
		status, body, err := p.Get(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("not ready: %s", body)
		}
		return err
	})
}

// Metric returns the value of a series, named as in /metrics: "name" or `name{label="value"}`.
func (p *Program) Metric(ctx context.Context, series string) (float64, error) {
	_, body, err := p.Get(ctx, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("read the metrics of hindsight: %w", err)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("read the metrics of hindsight: no series %s", series)
}

// Build builds a command of this module, such as "cmd/hindsight", with further arguments of go
// build.
func Build(ctx context.Context, path, pkg string, args ...string) error {
	return build(exec.CommandContext(ctx, "go", append([]string{"build", "-o", path}, args...)...), pkg)
}

// BuildRelease is Build with the settings of the Makefile.
func BuildRelease(ctx context.Context, path, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "-trimpath", "-ldflags", "-s -w")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build(cmd, pkg)
}

func build(cmd *exec.Cmd, pkg string) error {
	cmd.Args = append(cmd.Args, "github.com/hindsight-events/hindsight/"+pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
