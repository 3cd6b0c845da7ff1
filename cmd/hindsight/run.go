package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/internal/app"
	"github.com/hindsight-events/hindsight/internal/config"
)

// gcPercent is half of Go's default. The heap is small: collecting it twice as often costs a few
// percent of CPU, and saves 8 of 55 MB during a long list.
const gcPercent = 50

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [--config FILE]",
		Short: "Watch a cluster and export its Events",
		Long: `Watch a cluster and export each state of its Events to the configured sinks.
Without --config, all Events are written to stdout in eventrouter's format.`,
		Example: `  # print the Events of kubectl's current cluster
  hindsight run

  # run with a configuration, as in a Deployment
  hindsight run --config /etc/hindsight/config.yaml`,
		Args: cobra.NoArgs,
	}
	load := configFlag(cmd)
	listen := cmd.Flags().String("listen", "", "`ADDRESS` of metrics and probes, overrides the configuration; empty: disabled")
	profile := cmd.Flags().Bool("pprof", false, "serve Go profiles at /debug/pprof/ of the metrics address")
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
			NewLog:       func(c *config.Config) *slog.Logger { return reloadedLogger(cmd, c) },
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
