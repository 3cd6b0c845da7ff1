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
		Short: "Export the Events of a file",
		Long: `Export Events from a file or from stdin (-), as if a cluster had just reported
them. The keys source, journal, listen and when_full of the configuration do not
apply: the input is read no faster than the sinks accept it.

The input may be output of kubectl (get events -o json or yaml, with or without
-w and --output-watch-events; get --raw; cluster-info dump), an array of Events,
lines of Hindsight or eventrouter, and any of these in a container's log,
compressed with gzip or encoded in UTF-16. docs/query.md lists all formats.

Events are sorted by time, between pauses of one second, and as far as they fit
into 1 GiB, compressed, in the directory for temporary files. Parts of the input
that are no Events are listed on stderr with their lines, the rest is exported,
and the exit code is 1. It is also 1 if a sink rejected records; the last lines
have their number and the reason.`,
		Example: `  hindsight replay examples/outage/events.json
  kubectl get events -A -o json | hindsight replay -
  kubectl logs -n kube-system deploy/eventrouter | hindsight replay -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("replay needs one file, or - for stdin")
			}
			return nil
		},
	}
	load := configFlag(cmd)
	shift := cmd.Flags().Bool("shift-to-now", false, "move all times by the same duration, so that the newest is now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, _, err := load()
		if err != nil {
			return err
		}
		in, name := cmd.InOrStdin(), "stdin"
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
