// Hindsight ships every Event of a Kubernetes cluster to where it can be
// queried after the cluster has forgotten it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/hindsight-events/hindsight/internal/config"
)

// Exit codes.
const (
	exitFailure = 1 // something went wrong while it ran
	exitUsage   = 2 // the command line or the configuration is invalid
)

func main() {
	// A closed pipe at the standard output shall be an error of the write, not
	// a signal that ends the program without a word.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return executeAs(ctx, os.Args[0], args, stdin, stdout, stderr)
}

// executeAs is execute by another name of the program, such as that of kubectl's
// plugin.
func executeAs(ctx context.Context, program string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "hindsight",
		Short: "Ship every Kubernetes Event to where it can be queried later",
		Long: `Hindsight ships every Event of a Kubernetes cluster to Loki, to files or to the
standard output, and finds it there again, so that an outage can be understood
after the cluster has forgotten it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(), replayCommand(), checkCommand(), versionCommand(), queryCommand(), auditCommand())
	root.SetArgs(asPlugin(root, program, args))

	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "hindsight: %s\n", line)
	}
	var failed *failure
	if errors.As(err, &failed) {
		return exitFailure
	}
	return exitUsage
}

// failure is an error of the work itself, as opposed to one of the command line
// or the configuration.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed marks an error as a failure; nil stays nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// configFile is what --config names.
type configFile struct {
	path string
	data []byte
}

// configFlag adds --config and returns how to read what it names. Without it,
// there is no file.
func configFlag(cmd *cobra.Command) (load func() (*config.Config, *configFile, error)) {
	var path string
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE` (default: every Event to the standard output)")
	return func() (*config.Config, *configFile, error) {
		if !cmd.Flags().Changed("config") {
			return config.Eventrouter(), nil, nil
		}
		data, err := readFile(cmd.Context(), path)
		if errors.Is(err, errInterrupted) {
			return nil, nil, err
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read configuration: %w", err)
		}
		c, err := config.Parse(path, data)
		return c, &configFile{path, data}, err
	}
}

// readFile is os.ReadFile, but returns errInterrupted once ctx ends, also while a
// pipe has nothing to read.
func readFile(ctx context.Context, path string) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := os.ReadFile(path)
		read <- result{data, err}
	}()
	select {
	case r := <-read:
		return r.data, r.err
	case <-ctx.Done():
		return nil, errInterrupted
	}
}

// newLogger returns the log of a configuration, on the standard error. What
// client-go has to say goes there too.
func newLogger(cmd *cobra.Command, c *config.Config) *slog.Logger {
	log := slog.New(c.Log.Handler(cmd.ErrOrStderr()))
	klog.SetSlogLogger(log.With("component", "client-go"))
	return log
}
