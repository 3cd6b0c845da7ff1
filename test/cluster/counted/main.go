// Command counted runs a command, go test as a rule, and then prints one line:
// how many tests ran against which version of programs found on the machine, such
// as Loki, and how many were skipped without them. Its exit code is the command's.
//
//	go run ./test/cluster/counted go test -tags e2e ./test/...
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"github.com/hindsight-events/hindsight/test/cluster/tally"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "counted:", err)
		code = 1
	}
	os.Exit(code)
}

func run(command []string) (code int, err error) {
	if len(command) == 0 {
		return 0, errors.New("no command is given")
	}
	file, err := os.CreateTemp("", "hindsight-tally-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	// Ctrl-C reaches the command too: it decides when to end.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), tally.Variable+"="+file.Name())
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit):
		code = max(exit.ExitCode(), 1) // ExitCode is negative after a signal
	case err != nil:
		return 0, err
	}
	entries, err := tally.Read(file)
	if err != nil {
		return code, err
	}
	fmt.Println(tally.Summary(entries))
	return code, nil
}
