package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// The program names of a kubectl plugin and its completion:
// https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
const (
	pluginName     = "kubectl-hindsight"
	completionName = "kubectl_complete-hindsight"
)

// asPlugin turns the root command into the kubectl plugin, if the program has the plugin's name: it
// is then the command query, with the other commands below it. With the name of the plugin's
// completion, it completes the arguments. asPlugin returns the arguments for the root command.
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
	root.Flags().AddFlagSet(query.Flags()) // completions included
	return args
}
