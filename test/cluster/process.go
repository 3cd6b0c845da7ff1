package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	readyTimeout  = time.Minute
	readyInterval = 50 * time.Millisecond
	tailBytes     = 4 << 10
)

// Process is a started program whose output goes to a file. It does not outlive the program that
// started it (on Linux even if that is killed). It is safe for concurrent use.
type Process struct {
	name    string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // how it ended; to be read once done is closed
}

// StartProcess runs a program. Its standard output and error are appended to
// logPath. It runs until it ends by itself or by a method.
func StartProcess(name, logPath, binary string, args ...string) (*Process, error) {
	return StartCommand(name, logPath, exec.Command(binary, args...))
}

// StartCommand is StartProcess for a prepared command. A standard output that is
// set does not go to logPath.
func StartCommand(name, logPath string, cmd *exec.Cmd) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", name, err)
	}
	p := &Process{name: name, logPath: logPath, cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = processAttributes()

	started := make(chan error)
	go func() {
		// Linux sends the parent's death signal when the thread that started
		// the process ends, so this goroutine keeps its thread until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer log.Close()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit waits for the end of the process and returns nil for the exit code 0, else an
// *exec.ExitError. It may be called after Kill and Terminate.
func (p *Process) Exit() error {
	<-p.done
	return p.err
}

// Exited returns how the process ended. It may be called once Done is closed.
func (p *Process) Exited() *os.ProcessState { return p.cmd.ProcessState }

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the process with SIGKILL, paused or not, and waits for it.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails only if the process has ended
	<-p.done
}

// Terminate sends SIGTERM and waits until the process has ended. When ctx ends
// before that, the process is killed, and an error is returned.
func (p *Process) Terminate(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not end on SIGTERM and was killed: %w", p.name, context.Cause(ctx))
	}
}

// Pause stops the process with SIGSTOP: its connections stay open without responses. It returns
// once all of its threads are stopped.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for range pauseAttempts {
		if isStopped(p.PID()) {
			return nil
		}
		time.Sleep(pauseInterval)
	}
	return fmt.Errorf("%s runs after %s", p.name, syscall.SIGSTOP)
}

// Resume ends a pause.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %s to %s: %w", s, p.name, err)
	}
	return nil
}

// For how long Pause waits: five seconds.
const (
	pauseInterval = 5 * time.Millisecond
	pauseAttempts = 1000
)

// WaitReady calls check until it returns nil, for at most a minute. If it never
// does, or the process ends, the error holds the last answer of check and the
// end of the log.
func (p *Process) WaitReady(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %v", readyTimeout))
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%v); its log ends with\n%s", p.name, p.err, p.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w; its log ends with\n%s", p.name, context.Cause(ctx), err, p.LogTail())
		case <-time.After(readyInterval):
		}
	}
}

// LogTail returns the last 4 KiB of the log, or why it cannot be read.
func (p *Process) LogTail() string {
	tail, err := readTail(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(tail)
}

func readTail(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	start := max(size-tailBytes, 0)
	tail, err := io.ReadAll(io.NewSectionReader(f, start, size-start))
	if err != nil {
		return nil, err
	}
	if start > 0 { // begin with a whole line
		_, tail, _ = bytes.Cut(tail, []byte("\n"))
	}
	return tail, nil
}

// FreePort returns a loopback port that nothing listens on. It lies below the
// range that operating systems give to outgoing connections, so it is still
// free when a server that was stopped is started again.
func FreePort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port among 100 tried")
}
