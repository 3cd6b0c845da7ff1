package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// processAttributes ties a process to its parent: the kernel kills it when the parent dies. Its own
// process group keeps the terminal's Ctrl-C from it, so that a graceful stop stays possible.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// isStopped reports whether all threads of a process are stopped. A signal
// reaches those that run on other processors a moment later.
func isStopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		// The state comes after the name, which is in parentheses.
		if _, state, found := bytes.Cut(stat, []byte(") ")); !found || len(state) == 0 || (state[0] != 'T' && state[0] != 't') {
			return false
		}
	}
	return true
}
