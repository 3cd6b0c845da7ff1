package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs beside this one, its output in a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how; to be read once done is closed
	peak int64         // bytes resident at most, when it was told to end; 0: unknown
}

// startProcess starts a program with further variables in its environment.
func startProcess(binary, log string, env []string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{cmd: exec.Command(binary, args...), log: log, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// while returns a context that ends, with the cause, when the process does or
// when patience is over.
func (p *process) while(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited for %v; see %s", patience, p.log))
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.done:
			end(fmt.Errorf("%s has ended: %v; see %s", filepath.Base(p.cmd.Path), p.err, p.log))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { end(nil); stop() }
}

// usage is what a process has used from its start to its end, as the operating
// system says.
type usage struct {
	cpu       time.Duration
	peakBytes int64 // resident; 0 if it cannot be told
}

// peakOf returns the peak in an answer of the operating system, in bytes.
func peakOf(r *syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" {
		return r.Maxrss
	}
	return r.Maxrss << 10 // KiB elsewhere
}

// peakSinceExec is the peak so far of a process that runs, in bytes; 0 where Linux
// does not say it.
func peakSinceExec(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// wait waits for the end of the process.
func (p *process) wait(ctx context.Context) (usage, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return usage{}, ctx.Err()
	}
	if p.err != nil {
		return usage{}, fmt.Errorf("%s: %w; see %s", p.cmd.Path, p.err, p.log)
	}
	state := p.cmd.ProcessState
	u := usage{cpu: state.UserTime() + state.SystemTime(), peakBytes: p.peak}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return u, fmt.Errorf("what the benchmark itself uses: %w", err)
	}
	// A process begins with the peak of the one that started it: Linux counts the
	// memory that is given up at execve(2). Below it, this says nothing.
	if r, ok := state.SysUsage().(*syscall.Rusage); ok && peakOf(r) > peakOf(&own) {
		u.peakBytes = peakOf(r)
	}
	return u, nil
}

// kill ends the process, if it has not ended, and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop lets the process end in order.
func (p *process) stop(ctx context.Context) (usage, error) {
	p.peak = peakSinceExec(p.cmd.Process.Pid)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return usage{}, fmt.Errorf("stop %s: %w; see %s", p.cmd.Path, err, p.log)
	}
	return p.wait(ctx)
}

// build builds a program; a release as the Makefile does.
func build(ctx context.Context, to, pkg string, release bool) error {
	args := []string{"build", "-o", to}
	if release {
		args = append(args, "-trimpath", "-ldflags", "-s -w")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	if release {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
