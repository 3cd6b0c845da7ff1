// Hindsight exports Kubernetes Events to Grafana Loki, files or stdout, and queries them there.
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
	exitFailure = 1 // the command failed
	exitUsage   = 2 // the command line or the configuration is invalid
)

func main() {
	// A write to a closed pipe must return an error, not end the program without a message.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal kills the program.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return executeAs(ctx, os.Args[0], args, stdin, stdout, stderr)
}

// executeAs is execute with a given program name, such as the name of the kubectl plugin.
func executeAs(ctx context.Context, program string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "hindsight",
		Short: "Export Kubernetes Events and query them later",
		Long: `Hindsight exports Kubernetes Events to Grafana Loki, files or stdout, so that you
can query them long after the API server has deleted them.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(), replayCommand(), checkCommand(), versionCommand(), queryCommand(), timelineCommand(), auditCommand())
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

// failure is an error with exit code exitFailure. Others are errors of the command line or the
// configuration.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed wraps an error as a failure; nil stays nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// configFile is the file of --config.
type configFile struct {
	path string
	data []byte
}

// configFlag adds the flag --config and returns a function that reads its file. Without the flag,
// the file is nil.
func configFlag(cmd *cobra.Command) (load func() (*config.Config, *configFile, error)) {
	var path string
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE` (default: write all Events to stdout)")
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

// readFile is os.ReadFile that returns errInterrupted when ctx ends, also while a pipe blocks.
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

// newLogger returns the logger of a configuration, on stderr. It is called once: client-go logs to
// it as well, and that cannot be changed while client-go is in use.
func newLogger(cmd *cobra.Command, c *config.Config) *slog.Logger {
	log := reloadedLogger(cmd, c)
	klog.SetSlogLogger(log.With("component", "client-go"))
	return log
}

// reloadedLogger returns the logger of a configuration that was reloaded.
func reloadedLogger(cmd *cobra.Command, c *config.Config) *slog.Logger {
	return slog.New(c.Log.Handler(cmd.ErrOrStderr()))
}
