package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [--config FILE]",
		Short: "Validate a configuration and print it with all defaults",
		Long: `Validate a configuration and print it with all defaults. The exit code is 2 if it
is invalid.`,
		Args: cobra.NoArgs,
	}
	load := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, _, err := load()
		if err != nil {
			return err
		}
		enc := yaml.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent(2)
		if err := enc.Encode(c); err != nil {
			return failed(fmt.Errorf("print configuration: %w", err))
		}
		return failed(enc.Close())
	}
	return cmd
}
