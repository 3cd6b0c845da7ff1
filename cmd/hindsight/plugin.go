package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// The names under which kubectl finds a plugin and its completion:
// https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
const (
	pluginName     = "kubectl-hindsight"
	completionName = "kubectl_complete-hindsight"
)

// asPlugin makes the root command that of kubectl's plugin, if the program goes by
// that name: it queries, and has the other commands below it. By the name of the
// plugin's completion it completes the arguments. asPlugin returns the arguments
// for the root.
func asPlugin(root *cobra.Command, program string, args []string) []string {
	name := strings.TrimSuffix(filepath.Base(program), ".exe")
	switch {
	case name == completionName:
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	case !strings.HasPrefix(name, pluginName) && !strings.HasPrefix(name, "kubectl_hindsight"):
		return args
	}
	query := queryCommand()
	root.Use = pluginName
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl hindsight"}
	root.Short, root.Long, root.RunE, root.Args = query.Short, query.Long, query.RunE, query.Args
	root.Example = strings.ReplaceAll(query.Example, "hindsight query", "kubectl hindsight")
	root.Flags().AddFlagSet(query.Flags()) // with their completion, which cobra knows by flag
	return args
}
