package main

import (
	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/internal/app"
)

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
	to := connectionFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("listen") {
			if err := c.SetListen(*listen); err != nil {
				return err
			}
		}
		kubernetes, namespace, err := to.config()
		if err != nil {
			return err
		}
		return failed(app.Run(cmd.Context(), app.Options{
			Config:       c,
			Kubernetes:   kubernetes,
			OwnNamespace: namespace,
			Version:      versionString(),
			Stdout:       cmd.OutOrStdout(),
			Log:          newLogger(cmd, c),
		}))
	}
	return cmd
}
