package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/internal/app"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay FILE|- [--config FILE]",
		Short: "Ship the Events of a file",
		Long: `Ship Events that were saved to a file, or come from the standard input (-), as
if a cluster had just reported them: an EventList (kubectl get events -o json or
yaml), what kubectl get events -w -o json prints, or eventrouter lines. Lists are
sorted by time. Of the configuration, source, journal, listen and when_full do not
apply: the input waits while a sink is behind.

What is no Event is reported on the standard error with its line; the rest is
shipped all the same, and the exit code is 1. It is 1 as well if a sink refused
records for good; the last lines say how many, of how many, and why.`,
		Example: `  hindsight replay examples/outage/events.json
  kubectl get events -A -o json | hindsight replay -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("replay needs one file, or - for the standard input")
			}
			return nil
		},
	}
	load := configFlag(cmd)
	shift := cmd.Flags().Bool("shift-to-now", false, "move all times alike, so that the newest is now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, _, err := load()
		if err != nil {
			return err
		}
		in, name := cmd.InOrStdin(), "standard input"
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("replay: %w", err)
			}
			defer f.Close()
			in, name = f, args[0]
		}
		return failed(app.Replay(cmd.Context(), app.Options{
			Config: c,
			Stdout: cmd.OutOrStdout(),
			Log:    newLogger(cmd, c),
		}, app.Input{
			Reader:     in,
			ShiftToNow: *shift,
			Bad:        func(err error) { report(cmd.ErrOrStderr(), name, err) },
		}))
	}
	return cmd
}

func report(w io.Writer, name string, err error) {
	fmt.Fprintf(w, "hindsight: %s: %v\n", name, err)
}
