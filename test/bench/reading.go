package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// usage holds the resources that a process has used so far, or in a period.
type usage struct {
	cpu       time.Duration
	switches  int64 // of context, of all threads, voluntary or not: about as often it woke up
	peakBytes int64 // resident; 0 if unknown
	anonBytes int64 // resident at the end, without pages of files such as the binary; 0 if unknown
}

// since returns the usage of the period that began with before.
func (u usage) since(before usage) usage {
	u.cpu -= before.cpu
	u.switches -= before.switches
	return u
}

// usageSoFar returns the usage of a running process. It needs Linux. What threads have used that
// have ended is missing: those of a Go program do not end.
func usageSoFar(pid int) (u usage, err error) {
	memory, err := fields(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("usage of a process: %w", err)
	}
	u.peakBytes, u.anonBytes = memory["VmHWM"]<<10, memory["RssAnon"]<<10
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return u, err
	}
	for _, task := range tasks {
		counted, err := fields(task + "/status")
		if err != nil {
			return u, fmt.Errorf("usage of a process: %w", err)
		}
		u.switches += counted["voluntary_ctxt_switches"] + counted["nonvoluntary_ctxt_switches"]
		data, err := os.ReadFile(task + "/schedstat")
		if err != nil {
			return u, fmt.Errorf("usage of a process: %w", err)
		}
		var ns int64
		if _, err := fmt.Fscan(bytes.NewReader(data), &ns); err != nil {
			return u, fmt.Errorf("%s/schedstat: %w", task, err)
		}
		u.cpu += time.Duration(ns)
	}
	return u, nil
}

// during returns the usage of a process while f runs.
func during(pid int, f func() error) (used usage, err error) {
	before, err := usageSoFar(pid)
	if err != nil {
		return used, err
	}
	if err := f(); err != nil {
		return used, err
	}
	after, err := usageSoFar(pid)
	return after.since(before), err
}

// fields reads the numbers of a status file of Linux.
func fields(path string) (map[string]int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	numbers := make(map[string]int64)
	for line := range bytes.Lines(data) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		var n int64
		if _, err := fmt.Fscan(bytes.NewReader(value), &n); err == nil {
			numbers[string(name)] = n
		}
	}
	return numbers, nil
}
