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
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/file"
	"github.com/hindsight-events/hindsight/query/loki"
)

// errInterrupted is the error of a command that was interrupted.
var errInterrupted = errors.New("interrupted")

// exitInterrupted is the exit code that shells use for SIGINT.
const exitInterrupted = 130

// queryFlags are the flags of hindsight query.
type queryFlags struct {
	filter        query.Filter
	span          query.TimeRange
	allNamespaces bool
	limit         int
	states        bool
	watch         bool
	output        string
	noHeaders     bool
	utc           bool
	times         bool
	logql         bool
	from          sourceFlags
	kubeconfig    string
	context       string
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
	f.StringVarP(&q.filter.Namespace, "namespace", "n", "", "`NAMESPACE` of the Events")
	f.BoolVarP(&q.allNamespaces, "all-namespaces", "A", false, "show the Events of all namespaces")
	f.StringVar(&q.filter.For, "for", "", "involved `OBJECT`, as in pod/web-0, deployments.apps/web or no/a")
	f.StringSliceVar(&q.filter.Types, "types", nil, "`TYPE` or several: Normal, Warning or the custom type of a controller")
	f.StringSliceVar(&q.filter.Reasons, "reason", nil, "`REASON` or several")
	f.StringVar(&q.filter.Node, "node", "", "involved or reporting `NODE`")
	f.StringVar(&q.filter.Cluster, "cluster", "", "label cluster (default: from --config, else any)")
	f.StringVar(&q.filter.Grep, "grep", "", "regular expression (`RE2`) that the message contains")
	f.StringVarP(&q.filter.Selector, "selector", "l", "", "`SELECTOR` of fields and labels, as in {reason=~\"Preempted|Evicted\"}")
	f.StringVar(&q.span.Since, "since", "", "show Events of the last `DURATION`, as in 30m or 7d (default 24h)")
	f.StringVar(&q.span.From, "from", "", "start `TIME`")
	f.StringVar(&q.span.To, "to", "", "end `TIME`, exclusive (default now)")
	f.IntVar(&q.limit, "limit", 0, "show the newest `N` rows (default: all)")
	f.BoolVar(&q.states, "states", false, "show a row for each state of an Event, not only the latest")
	f.BoolVarP(&q.watch, "watch", "w", false, "continue with each new state")
	f.StringVarP(&q.output, "output", "o", "", "`FORMAT`: "+strings.Join(query.Outputs, ", "))
	f.BoolVar(&q.noHeaders, "no-headers", false, "omit the headings")
	f.BoolVar(&q.times, "times", false, "show times instead of ages; default with --from, --to or a row older than a day")
	f.BoolVar(&q.utc, "utc", false, "read and write times in UTC")
	f.BoolVar(&q.logql, "logql", false, "print the query for Loki, for example for Grafana, without running it")
	q.from.register(cmd, "configuration `FILE` of Hindsight with the sink to read")
	f.StringVar(&q.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` with the default namespace")
	f.StringVar(&q.context, "context", "", "`CONTEXT` of the kubeconfig")
	cmd.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
	addCompletions(cmd, &q)
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
	now := time.Now()
	q.span.Zone = time.Local
	if q.utc {
		q.span.Zone = time.UTC
	}
	from, to, assumed, err := q.span.Times(now)
	if err != nil {
		return err
	}
	if q.watch && q.span.To != "" {
		return errors.New("--watch continues without an end: remove --to")
	}
	if q.limit < 0 {
		return errors.New("--limit must not be negative")
	}
	if err := q.chooseNamespace(); err != nil {
		return err
	}
	selection, source, parser, err := q.open()
	if err != nil {
		return err
	}
	if c, ok := source.(io.Closer); ok {
		defer c.Close()
	}
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	if q.logql {
		l, ok := source.(*query.Loki)
		if !ok {
			return errors.New("--logql needs Loki: files are not queried in LogQL")
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
		Times:         q.times || q.span.From != "" || q.span.To != "",
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
	if assumed {
		warn(fmt.Sprintf("searching from %s to %s; times without a zone are in %s",
			from.Format(time.RFC3339), to.Format(time.RFC3339), zoneName(q.span.Zone)))
	}
	var progress *query.Progress
	if _, ok := terminal(stderr); ok {
		progress = query.NewProgress(stderr, from, to)
	}
	result, err := query.Run(cmd.Context(), query.Request{
		Source:    source,
		Parser:    parser,
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

// zoneName describes a time zone.
func zoneName(zone *time.Location) string {
	if zone == time.UTC {
		return "UTC"
	}
	return time.Now().In(zone).Format("local time (MST, -07:00)")
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

// chooseNamespace sets the default namespace, as kubectl does.
func (q *queryFlags) chooseNamespace() (err error) {
	if q.allNamespaces || q.filter.Namespace != "" || query.ClusterScoped(q.filter.For) {
		return nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = q.kubeconfig
	q.filter.Namespace, err = defaultNamespace(rules, &clientcmd.ConfigOverrides{CurrentContext: q.context})
	return err
}

// open returns the selection and the source to read.
func (q *queryFlags) open() (*query.Selection, query.Source, format.Parser, error) {
	fail := func(err error) (*query.Selection, query.Source, format.Parser, error) {
		return nil, nil, format.Parser{}, err
	}
	where, err := q.from.readSource()
	if err != nil {
		return fail(err)
	}
	if where.cluster != "" && q.filter.Cluster == "" && where.file == "" {
		q.filter.Cluster = where.cluster
	}
	selection, err := query.NewSelection(q.filter)
	if err != nil {
		return fail(err)
	}
	if where.file != "" {
		if err := selection.CheckFiles(); err != nil {
			return fail(err)
		}
		files, err := file.Open(where.file)
		if err != nil {
			return fail(err)
		}
		return selection, query.Files{Files: files, Selection: selection}, format.Parser{}, nil
	}
	if where.loki.URL == nil && !q.logql {
		return fail(errNoLoki)
	}
	source := &query.Loki{Layout: where.layout, Selection: selection}
	if !q.logql {
		if source.Client, err = loki.New(where.loki); err != nil {
			return fail(err)
		}
	}
	return selection, source, format.Parser{Labels: where.layout.Labels}, nil
}
