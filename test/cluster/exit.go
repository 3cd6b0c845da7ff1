package cluster

// Exit waits until the process has ended and says how: nil for the exit code 0,
// else an *exec.ExitError. It may be called after Kill and Terminate.
func (p *Process) Exit() error {
	<-p.done
	return p.err
}
