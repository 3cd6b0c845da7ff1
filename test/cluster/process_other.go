//go:build !linux

package cluster

import "syscall"

// processAttributes leaves a process in the group of the one that started it,
// so that the terminal's Ctrl-C ends both. Nothing here ends it when its parent
// is killed with SIGKILL.
func processAttributes() *syscall.SysProcAttr { return nil }

// isStopped is unknown on this system.
func isStopped(int) bool { return true }
