//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// restartAfter is the pause before an exited process is restarted.
const restartAfter = 300 * time.Millisecond

// replica is a hindsight with its own directory. It is restarted when it exits, as a
// kubelet does.
type replica struct {
	name  string
	dir   string
	args  []string
	proxy *proxy // between it and the API server

	note func(format string, args ...any) // logs to the history; safe for concurrent use

	watching sync.WaitGroup

	mu      sync.Mutex // guards the rest
	process *program.Program
	runs    []*run
}

// run is one process of a replica.
type run struct {
	replica   *replica
	number    int
	stoppedBy string // the signal, empty: it was not stopped
	exit      error  // of the process
	ended     bool
	stdout    string // the file of its standard output
	log       string // the file of its standard error
	startedAt time.Time
	endedAt   time.Time
}

// logText returns the log.
func (r *run) logText() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// lostLease reports whether the process ended because it lost the Lease.
func (r *run) lostLease() bool { return strings.Contains(r.logText(), "lease lost") }

func lastLines(text string, n int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

func (r *run) String() string { return fmt.Sprintf("%s, run %d", r.replica.name, r.number) }

// newReplica prepares a replica that ends with the test. A proxy is between it and the
// API server at the URL.
func newReplica(t *testing.T, name, dir, kubeconfig, url string, note func(string, ...any)) *replica {
	t.Helper()
	for _, path := range []string{dir, filepath.Join(dir, "out"), filepath.Join(dir, "more")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{name: name, dir: dir, note: note, proxy: newProxy(t, port, url)}
	r.args = []string{
		"run", "--config", r.configPath(), "--listen", "127.0.0.1:0",
		"--kubeconfig", kubeconfig, "--server", "https://" + r.proxy.address,
	}
	t.Cleanup(func() {
		r.kill()
		r.watching.Wait()
	})
	return r
}

func (r *replica) configPath() string { return filepath.Join(r.dir, "config.yaml") }
func (r *replica) filePath() string   { return filepath.Join(r.dir, "out", "events.jsonl") }
func (r *replica) morePath() string   { return filepath.Join(r.dir, "more", "events.txt") }
func (r *replica) journalDir() string { return filepath.Join(r.dir, "journal") }

// configure replaces the configuration file atomically.
func (r *replica) configure(config string) error {
	next := r.configPath() + ".next"
	if err := os.WriteFile(next, []byte(config), 0o644); err != nil {
		return err
	}
	return os.Rename(next, r.configPath())
}

// start starts the process.
func (r *replica) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.launch()
}

// launch starts the process and watches it. r.mu is held.
func (r *replica) launch() error {
	n := len(r.runs) + 1
	run := &run{
		replica: r, number: n, startedAt: time.Now(),
		stdout: filepath.Join(r.dir, fmt.Sprintf("stdout-%d.jsonl", n)),
		log:    filepath.Join(r.dir, fmt.Sprintf("log-%d.txt", n)),
	}
	stdout, err := os.Create(run.stdout)
	if err != nil {
		return err
	}
	defer stdout.Close()
	p, err := program.Start(program.Options{
		Binary: program.Binary, Args: r.args, Env: []string{"POD_NAME=" + r.name}, Stdout: stdout, Log: run.log,
	})
	if err != nil {
		return err
	}
	r.process, r.runs = p, append(r.runs, run)
	r.note("%s starts", run)
	r.watching.Go(func() { r.watch(p, run) })
	return nil
}

// watch waits for the end of a process, and restarts it unless it was stopped.
func (r *replica) watch(p *program.Program, run *run) {
	exit := p.Exit()
	r.mu.Lock()
	run.exit, run.ended, run.endedAt = exit, true, time.Now()
	stoppedBy := run.stoppedBy
	r.mu.Unlock()
	if stoppedBy != "" {
		r.note("%s has ended on %s: %s", run, stoppedBy, describe(exit))
		return
	}
	r.note("%s has ended by itself: %s", run, describe(exit))
	time.Sleep(restartAfter)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != p {
		return // stopped meanwhile
	}
	if err := r.launch(); err != nil {
		r.note("%s cannot be started again: %v", r.name, err)
	}
}

func describe(exit error) string {
	if exit == nil {
		return "exit status 0"
	}
	return exit.Error()
}

// detach returns the process, which will not be restarted; nil if there is none.
func (r *replica) detach(signal string) *program.Program {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.process
	if p != nil {
		if run := r.runs[len(r.runs)-1]; !run.ended {
			run.stoppedBy = signal
		}
	}
	r.process = nil
	return p
}

// kill ends the process with SIGKILL.
func (r *replica) kill() {
	if p := r.detach("SIGKILL"); p != nil {
		p.Kill()
	}
}

// terminate stops the process with SIGTERM, and returns an error if it does not
// end in time with the exit code 0. It may have ended by itself before, or have lost
// its Lease meanwhile.
func (r *replica) terminate(ctx context.Context) error {
	p := r.detach("SIGTERM")
	if p == nil {
		return fmt.Errorf("%s does not run", r.name)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.Terminate(ctx); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	runs := r.allRuns()
	run := &runs[len(runs)-1]
	if err := p.Exit(); err != nil && !run.lostLease() {
		return fmt.Errorf("%s ended with %w on SIGTERM, want 0\n%s", run, err, lastLines(run.logText(), 10))
	}
	return nil
}

// running returns the process and its run.
func (r *replica) running() (*program.Program, *run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		return nil, nil, fmt.Errorf("%s does not run", r.name)
	}
	return r.process, r.runs[len(r.runs)-1], nil
}

// allRuns returns copies of all runs so far.
func (r *replica) allRuns() []run {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]run, len(r.runs))
	for i, run := range r.runs {
		all[i] = *run
	}
	return all
}
