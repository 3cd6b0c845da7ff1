package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/internal/app"
	"github.com/hindsight-events/hindsight/internal/config"
)

// gcPercent is half of what Go collects garbage by. There is little to go through,
// so that twice as often costs a few percent of CPU, and saves 8 MB of 55 while a
// long list is taken in.
const gcPercent = 50

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [--config FILE]",
		Short: "Watch a cluster and ship its Events",
		Long: `Watch a cluster and ship each state of each of its Events to the configured
sinks. Without --config every Event goes to the standard output, in the lines
that eventrouter wrote.`,
		Example: `  # every Event of the cluster that kubectl talks to
  hindsight run

  # as in a cluster
  hindsight run --config /etc/hindsight/config.yaml`,
		Args: cobra.NoArgs,
	}
	load := configFlag(cmd)
	listen := cmd.Flags().String("listen", "", "`ADDRESS` for metrics and probes; overrides the configuration's, empty: none")
	profile := cmd.Flags().Bool("pprof", false, "serve Go's profiles under /debug/pprof/, beside the metrics")
	to := connectionFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, file, err := load()
		if err != nil {
			return err
		}
		override := func(c *config.Config) error {
			if !cmd.Flags().Changed("listen") {
				return nil
			}
			return c.SetListen(*listen)
		}
		if err := override(c); err != nil {
			return err
		}
		kubernetes, namespace, err := to.config()
		if err != nil {
			return err
		}
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(gcPercent)
		}
		o := app.Options{
			Config:       c,
			Kubernetes:   kubernetes,
			OwnNamespace: namespace,
			Version:      versionString(),
			Profile:      *profile,
			Stdout:       cmd.OutOrStdout(),
			Log:          newLogger(cmd, c),
			NewLog:       func(c *config.Config) *slog.Logger { return newLogger(cmd, c) },
		}
		if file != nil {
			o.File = &app.ConfigFile{Path: file.path, Data: file.data, Parse: func(data []byte) (*config.Config, error) {
				c, err := config.Parse(file.path, data)
				if err != nil {
					return nil, err
				}
				return c, override(c)
			}}
		}
		return failed(app.Run(cmd.Context(), o))
	}
	return cmd
}
