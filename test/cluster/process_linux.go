package cluster

import "syscall"

// processAttributes ties a process to the one that started it: the kernel kills
// it when that one dies, however it dies. In a process group of its own it does
// not get the terminal's Ctrl-C, so an orderly stop stays possible.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
