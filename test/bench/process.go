package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// process is a started program with accounting of its resources.
type process struct {
	*cluster.Process
	log  string
	last usage // before the stop, if known
}

// startProcess starts a program with further variables in its environment.
func startProcess(binary, log string, env []string, args ...string) (*process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	p, err := cluster.StartCommand(filepath.Base(binary), log, cmd)
	if err != nil {
		return nil, err
	}
	return &process{Process: p, log: log}, nil
}

// while returns a context that ends, with the cause, when the process ends or patience has
// passed.
func (p *process) while(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited for %v; see %s", patience, p.log))
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.Done():
			end(fmt.Errorf("the process has ended: %v; see %s", p.Exit(), p.log))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { end(nil); stop() }
}

// peakOf returns the peak resident memory in bytes.
func peakOf(r *syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" {
		return r.Maxrss
	}
	return r.Maxrss << 10 // KiB elsewhere
}

// wait waits for the end of the process.
func (p *process) wait(ctx context.Context) (usage, error) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return usage{}, ctx.Err()
	}
	if err := p.Exit(); err != nil {
		return usage{}, fmt.Errorf("%w; see %s", err, p.log)
	}
	state := p.Exited()
	u := p.last
	u.cpu = state.UserTime() + state.SystemTime()
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return u, fmt.Errorf("read the resources of the benchmark: %w", err)
	}
	// A process inherits the peak of its parent: Linux counts the memory released at
	// execve(2). A lower value is not its own.
	if r, ok := state.SysUsage().(*syscall.Rusage); ok && peakOf(r) > peakOf(&own) {
		u.peakBytes = peakOf(r)
	}
	return u, nil
}

// stop sends SIGINT and waits.
func (p *process) stop(ctx context.Context) (usage, error) {
	p.last, _ = usageSoFar(p.PID()) // without, its memory is unknown
	if err := p.Signal(syscall.SIGINT); err != nil {
		return usage{}, fmt.Errorf("%w; see %s", err, p.log)
	}
	return p.wait(ctx)
}
