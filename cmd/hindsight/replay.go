package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/internal/app"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay FILE|- [--config FILE]",
		Short: "Ship the Events of a file",
		Long: `Ship Events that were saved to a file, or come from the standard input (-), as
if a cluster had just reported them. Of the configuration, source, journal, listen
and when_full do not apply: the input waits while a sink is behind.

The input may be what kubectl prints (get events -o json or yaml, with or without
-w and --output-watch-events; get --raw; cluster-info dump), an array of Events,
lines of Hindsight or of eventrouter, and any of these in the log of a container,
packed with gzip or in UTF-16. docs/query.md lists all forms.

Events are sorted by time, as far as they come without a pause of a second and fit
into 1 GiB, packed, in the directory for temporary files. What is no Event is
named on the standard error with its line; the rest is shipped all the same, and
the exit code is 1. It is 1 as well if a sink refused records for good; the last
lines give their number and the reason.`,
		Example: `  hindsight replay examples/outage/events.json
  kubectl get events -A -o json | hindsight replay -
  kubectl logs -n kube-system deploy/eventrouter | hindsight replay -`,
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
			Name:       name,
			Reader:     in,
			ShiftToNow: *shift,
		}))
	}
	return cmd
}
