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

// A container that has ended is started again after this time.
const restartAfter = 300 * time.Millisecond

// replica is one hindsight with a directory of its own, which is started again
// when it ends, as a kubelet does.
type replica struct {
	name  string
	dir   string
	args  []string
	proxy *proxy // between it and the API server

	note func(format string, args ...any) // for the history; safe for concurrent use

	watching sync.WaitGroup

	mu      sync.Mutex // guards the rest
	process *program.Program
	runs    []*run
}

// run is one life of a replica's process.
type run struct {
	replica   *replica
	number    int
	asked     string // how it was told to end, empty: not at all
	exit      error  // how it ended
	ended     bool
	stdout    string // the file of its standard output
	log       string // the file of its standard error
	startedAt time.Time
	endedAt   time.Time
}

// said returns its log.
func (r *run) said() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// lostLease reports whether it had to end because it did not lead any more.
func (r *run) lostLease() bool { return strings.Contains(r.said(), "the lease is lost") }

func lastLines(text string, n int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

func (r *run) String() string { return fmt.Sprintf("%s, run %d", r.replica.name, r.number) }

// newReplica prepares one that ends with the test. Between it and the API server,
// or whatever is at the URL, there is a proxy.
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

// configure replaces the configuration, in one instant.
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
	life := &run{
		replica: r, number: n, startedAt: time.Now(),
		stdout: filepath.Join(r.dir, fmt.Sprintf("stdout-%d.jsonl", n)),
		log:    filepath.Join(r.dir, fmt.Sprintf("log-%d.txt", n)),
	}
	stdout, err := os.Create(life.stdout)
	if err != nil {
		return err
	}
	defer stdout.Close()
	p, err := program.Start(program.Options{
		Binary: program.Binary, Args: r.args, Env: []string{"POD_NAME=" + r.name}, Stdout: stdout, Log: life.log,
	})
	if err != nil {
		return err
	}
	r.process, r.runs = p, append(r.runs, life)
	r.note("%s starts", life)
	r.watching.Go(func() { r.watch(p, life) })
	return nil
}

// watch waits for the end of a process, and starts it again unless it was told
// to end.
func (r *replica) watch(p *program.Program, life *run) {
	exit := p.Exit()
	r.mu.Lock()
	life.exit, life.ended, life.endedAt = exit, true, time.Now()
	asked := life.asked
	r.mu.Unlock()
	if asked != "" {
		r.note("%s has ended as it was told to (%s): %s", life, asked, describe(exit))
		return
	}
	r.note("%s has ended by itself: %s", life, describe(exit))
	time.Sleep(restartAfter)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != p {
		return // it was told to end meanwhile
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

// take returns the process, which will not be started again; nil if there is
// none.
func (r *replica) take(how string) *program.Program {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.process
	if p != nil {
		if life := r.runs[len(r.runs)-1]; !life.ended {
			life.asked = how
		}
	}
	r.process = nil
	return p
}

// kill ends the process with SIGKILL.
func (r *replica) kill() {
	if p := r.take("SIGKILL"); p != nil {
		p.Kill()
	}
}

// terminate ends the process with SIGTERM, and returns an error if it does not
// end in time or not with the exit code 0. It may have ended by itself before,
// or have lost its lease meanwhile.
func (r *replica) terminate(ctx context.Context) error {
	p := r.take("SIGTERM")
	if p == nil {
		return fmt.Errorf("%s does not run", r.name)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.Terminate(ctx); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	lives := r.lives()
	life := &lives[len(lives)-1]
	if err := p.Exit(); err != nil && !life.lostLease() {
		return fmt.Errorf("%s ended with %w on SIGTERM, want 0\n%s", life, err, lastLines(life.said(), 10))
	}
	return nil
}

// running returns the process, to be paused and resumed, and its life.
func (r *replica) running() (*program.Program, *run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		return nil, nil, fmt.Errorf("%s does not run", r.name)
	}
	return r.process, r.runs[len(r.runs)-1], nil
}

// lives returns all lives so far, by value: what is known of them now.
func (r *replica) lives() []run {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]run, len(r.runs))
	for i, life := range r.runs {
		all[i] = *life
	}
	return all
}
