package main

import "testing"

func TestExitCodeIsTheCommands(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -9 $$": 1} {
		if code, err := run([]string{"/bin/sh", "-c", script}); code != want || err != nil {
			t.Errorf("%s: exit code %d, %v, want %d", script, code, err, want)
		}
	}
	if _, err := run([]string{"/nowhere/go", "test"}); err == nil {
		t.Error("a command that is not there succeeds")
	}
}
