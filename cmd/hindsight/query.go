package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/timeline"
)

// errInterrupted is the error of a command that was interrupted.
var errInterrupted = errors.New("interrupted")

// exitInterrupted is the exit code that shells use for SIGINT.
const exitInterrupted = 130

// queryFlags are the flags of hindsight query.
type queryFlags struct {
	selectionFlags
	limit     int
	states    bool
	watch     bool
	output    string
	noHeaders bool
	showTimes bool
	logql     bool
	tree      bool
	resolve   bool
}

func queryCommand() *cobra.Command {
	var q queryFlags
	cmd := &cobra.Command{
		Use:   "query [flags]",
		Short: "Show exported Events, like kubectl events",
		Long: `Show the Events that Hindsight has exported to Loki or files, oldest first, like
kubectl events does for the Events of the last hour. Each Event is one row with
its latest state.

The address of Loki is --loki-url, or it is read from the environment
(HINDSIGHT_LOKI_URL, or the variables of logcli: LOKI_ADDR, LOKI_ORG_ID,
LOKI_USERNAME, LOKI_PASSWORD, LOKI_BEARER_TOKEN, LOKI_BEARER_TOKEN_FILE,
LOKI_CA_CERT_PATH), or from the configuration of Hindsight (--config), together
with the tenant and the credentials.

Without -n or -A, the namespace of the kubeconfig's current context applies, else
"default". Objects without a namespace, as in --for node/a, are found in all.

Times are 2006-01-02, "2006-01-02 15:04", 15:04, yesterday, "friday 15:04", 3h
(ago), or RFC 3339. Without a zone they are in local time, or in UTC with --utc.`,
		Example: queryExamples,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	q.selectionFlags.register(cmd)
	f.IntVar(&q.limit, "limit", 0, "show the newest `N` rows (default: all)")
	f.BoolVar(&q.states, "states", false, "show a row for each state of an Event, not only the latest")
	f.BoolVarP(&q.watch, "watch", "w", false, "continue with each new state")
	f.StringVarP(&q.output, "output", "o", "", "`FORMAT`: "+strings.Join(query.Outputs, ", "))
	f.BoolVar(&q.noHeaders, "no-headers", false, "omit the headings")
	f.BoolVar(&q.showTimes, "times", false, "show times instead of ages; default with --from, --to or a row older than a day")
	f.BoolVar(&q.tree, "tree", false, "with --for, also show the Events of all that the object owns, as the pods of a Deployment")
	f.BoolVar(&q.resolve, "resolve", false, "name the objects whose uids are in messages, as of the pod that preempted another")
	f.BoolVar(&q.logql, "logql", false, "print the query for Loki, for example for Grafana, without running it")
	addCompletions(cmd, &q.selectionFlags, query.Outputs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := q.run(cmd)
		if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
			return errInterrupted
		}
		return err
	}
	return cmd
}

const queryExamples = `  # Warnings in kubectl's current namespace
  hindsight query --types Warning

  # all Events of a pod in the last week, also if it was deleted
  hindsight query -n prod --for pod/web-0 --since 7d

  # all Events of a Deployment, its ReplicaSets and its pods
  hindsight query -n prod --for deployment/web --tree --since 7d

  # preemptions, with the names of the preemptors
  hindsight query -A --reason Preempted --resolve --since 7d

  # preemptions and evictions of last Friday afternoon in all namespaces
  hindsight query -A --reason Preempted,Evicted --from "friday 12:00" --to "friday 18:00"

  # Events about a node and from it, with the reporter
  hindsight query -A --node node-3 --from "2 Jan 2026" --to "4 Jan 2026" -o wide

  # Events about exceeded quotas, as JSON
  hindsight query -A --grep 'exceeded quota' -o json

  # Warnings as they arrive
  hindsight query -A --types Warning -w

  # print a query for Grafana
  hindsight query -A -l '{reason=~"Failed.*", kind="Pod"}' --logql

  # read files instead of Loki
  hindsight query -A --file /var/log/hindsight/events.jsonl --since 30d`

func (q *queryFlags) run(cmd *cobra.Command) error {
	from, to, assumed, err := q.times(time.Now())
	if err != nil {
		return err
	}
	if q.watch && q.span.To != "" {
		return errors.New("--watch continues without an end: remove --to")
	}
	if q.limit < 0 {
		return errors.New("--limit must not be negative")
	}
	if err := q.checkTree(); err != nil {
		return err
	}
	if err := q.chooseNamespace(); err != nil {
		return err
	}
	selection, opened, err := q.openStore(q.logql)
	if err != nil {
		return err
	}
	source := opened.source(selection)
	if c, ok := source.(io.Closer); ok {
		defer c.Close()
	}
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	if q.logql {
		l, ok := source.(*query.Loki)
		if !ok {
			return errors.New("--logql needs Loki: files are not queried in LogQL")
		}
		if q.tree {
			if selection, err = timeline.SelectNamed(q.filter); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(stdout, selection.LogQL(l.Layout))
		return failed(err)
	}

	warn := func(message string) { fmt.Fprintf(stderr, "hindsight: %s\n", message) }
	for _, note := range selection.Notes {
		warn(note)
	}
	if l, ok := source.(*query.Loki); ok {
		l.Warn = warn
	}
	out := bufio.NewWriterSize(stdout, 64<<10)
	style := query.Style{
		NoHeaders:     q.noHeaders,
		AllNamespaces: q.allNamespaces || selection.SeveralNamespaces(),
		Times:         q.showTimes || q.span.From != "" || q.span.To != "",
		Zone:          q.span.Zone,
	}
	if width, ok := terminal(stdout); ok {
		style.Width = width
		style.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	printer, err := query.NewPrinter(q.output, out, style)
	if err != nil {
		return err
	}
	if q.resolve {
		printer = &query.Resolver{
			Printer:   printer,
			Beside:    q.output != "" && q.output != "table" && q.output != "wide" && q.output != "text",
			Open:      opened.anew,
			Parser:    opened.parser,
			Selection: selection,
			Context:   cmd.Context(),
		}
	}
	if assumed {
		warn(q.assumedZone(from, to))
	}
	var progress *query.Progress
	if _, ok := terminal(stderr); ok {
		progress = query.NewProgress(stderr, from, to)
	}
	if q.tree {
		return q.runTree(cmd.Context(), timeline.Request{
			Open: opened.source, Parser: opened.parser, Filter: q.filter, From: from, To: to, Progress: progress, OwnedOnly: true,
		}, printer, warn)
	}
	result, err := query.Run(cmd.Context(), query.Request{
		Source:    source,
		Parser:    opened.parser,
		Selection: selection,
		From:      from,
		To:        to,
		Limit:     q.limit,
		States:    q.states,
		Follow:    q.watch,
		Printer:   printer,
		Progress:  progress,
		Warn:      warn,
	})
	if err != nil {
		return failed(err)
	}
	if files, ok := source.(query.Files); ok {
		problems, err := files.Problems()
		if err != nil {
			return failed(err)
		}
		for _, problem := range problems {
			warn(problem)
		}
	}
	if result.Foreign > 0 {
		warn(fmt.Sprintf("ignored %d of %d lines that Hindsight did not write", result.Foreign, result.Entries))
	}
	if result.Rows == 0 {
		warn(query.ExplainEmpty(cmd.Context(), source, selection, from.In(q.span.Zone), to.In(q.span.Zone)))
	}
	return nil
}

// terminal reports whether w is a terminal, and returns its width.
func terminal(w io.Writer) (width int, ok bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return max(width, 20), true
}
