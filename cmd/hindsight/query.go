package main

import (
	"bufio"
	"cmp"
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

// errInterrupted ends a command whose user has ended it.
var errInterrupted = errors.New("interrupted")

// exitInterrupted is what a shell makes of SIGINT.
const exitInterrupted = 130

// queryFlags are those of hindsight query.
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
		Short: "Show Events of any time, as kubectl events does for the last hour",
		Long: `Show Events that Hindsight has shipped to Loki or to files, oldest first, as
kubectl events does for those that the cluster still has. Each Event is a row, of
its latest state.

Where Loki is, is said by --loki-url or the environment (HINDSIGHT_LOKI_URL, or
what logcli reads: LOKI_ADDR, LOKI_ORG_ID, LOKI_USERNAME, LOKI_PASSWORD,
LOKI_BEARER_TOKEN, LOKI_BEARER_TOKEN_FILE, LOKI_CA_CERT_PATH), or by --config:
the configuration that Hindsight runs with, with its tenant and credentials.

Without -n or -A, the namespace is that of the kubeconfig's current context, else
"default". An object without a namespace, as in --for node/a, is found from any.

Times are written as in 2006-01-02, "2006-01-02 15:04", 15:04, yesterday, "friday
15:04", 3h (ago), or RFC 3339. Without a zone they are local time, or UTC with
--utc.`,
		Example: queryExamples,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVarP(&q.filter.Namespace, "namespace", "n", "", "`NAMESPACE` of the Events")
	f.BoolVarP(&q.allNamespaces, "all-namespaces", "A", false, "Events of all namespaces")
	f.StringVar(&q.filter.For, "for", "", "the `OBJECT` they are about, as in pod/web-0, deployments.apps/web or no/a")
	f.StringSliceVar(&q.filter.Types, "types", nil, "`TYPE`, or several: Normal, Warning or one that a controller has made up")
	f.StringSliceVar(&q.filter.Reasons, "reason", nil, "`REASON`, or several")
	f.StringVar(&q.filter.Node, "node", "", "the `NODE` they are about, or were reported from")
	f.StringVar(&q.filter.Cluster, "cluster", "", "the label cluster (default: that of --config; else any)")
	f.StringVar(&q.filter.Grep, "grep", "", "regular expression (`RE2`) to be found in the message")
	f.StringVarP(&q.filter.Selector, "selector", "l", "", "`SELECTOR` of fields and labels, as in {reason=~\"Preempted|Evicted\"}")
	f.StringVar(&q.span.Since, "since", "", "how far back, as in 30m or 7d (default 24h)")
	f.StringVar(&q.span.From, "from", "", "`TIME` of the first")
	f.StringVar(&q.span.To, "to", "", "`TIME` behind the last (default now)")
	f.IntVar(&q.limit, "limit", 0, "the newest `N` rows (default: all)")
	f.BoolVar(&q.states, "states", false, "a row for each state of an Event, not only for its latest")
	f.BoolVarP(&q.watch, "watch", "w", false, "go on with each state that comes")
	f.StringVarP(&q.output, "output", "o", "", "`FORMAT`: "+strings.Join(query.Outputs, ", "))
	f.BoolVar(&q.noHeaders, "no-headers", false, "no headings")
	f.BoolVar(&q.times, "times", false, "times instead of ages; always so with --from, --to or a row older than a day")
	f.BoolVar(&q.utc, "utc", false, "times are in UTC, those read and those written")
	f.BoolVar(&q.logql, "logql", false, "print the query, such as for Grafana, and do not run it")
	q.from.register(cmd, "configuration `FILE` of Hindsight, whose sink is read")
	f.StringVar(&q.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` that the namespace is taken from")
	f.StringVar(&q.context, "context", "", "`CONTEXT` in it")
	cmd.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
	completions(cmd, &q)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := q.run(cmd)
		if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
			return errInterrupted
		}
		return err
	}
	return cmd
}

const queryExamples = `  # what went wrong in the namespace that kubectl uses
  hindsight query --types Warning

  # all that happened to a pod in the last week, also if it is gone
  hindsight query -n prod --for pod/web-0 --since 7d

  # who was preempted or evicted last Friday afternoon, anywhere
  hindsight query -A --reason Preempted,Evicted --from "friday 12:00" --to "friday 18:00"

  # what was said about a node and on it, with the reporter
  hindsight query -A --node node-3 --from "2 Jan 2026" --to "4 Jan 2026" -o wide

  # messages about quotas, as JSON
  hindsight query -A --grep 'exceeded quota' -o json

  # Warnings as they come
  hindsight query -A --types Warning -w

  # the same question for Grafana
  hindsight query -A -l '{reason=~"Failed.*", kind="Pod"}' --logql

  # without a server, from files
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
		return errors.New("--watch goes on from now; leave --to out")
	}
	if q.limit < 0 {
		return errors.New("--limit: must not be less than 0")
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
			return errors.New("--logql: files are not asked in LogQL")
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
		warn(fmt.Sprintf("searching from %s to %s; times without a zone are taken as %s",
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
		warn(fmt.Sprintf("%d of %d lines were not Hindsight's, and were left out", result.Foreign, result.Entries))
	}
	if result.Rows == 0 {
		warn(query.ExplainEmpty(cmd.Context(), source, selection, from.In(q.span.Zone), to.In(q.span.Zone)))
	}
	return nil
}

// zoneName says which zone local time is.
func zoneName(zone *time.Location) string {
	if zone == time.UTC {
		return "UTC"
	}
	return time.Now().In(zone).Format("local time (MST, -07:00)")
}

// terminal returns the width of the terminal that w is, if it is one.
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

// chooseNamespace fills in the namespace as kubectl does.
func (q *queryFlags) chooseNamespace() error {
	if q.allNamespaces || q.filter.Namespace != "" {
		return nil
	}
	if query.ClusterScoped(q.filter.For) {
		return nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = q.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: q.context}
	namespace, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).Namespace()
	if err != nil && !clientcmd.IsEmptyConfig(err) {
		return fmt.Errorf("find out the namespace: %w; or say it with -n or -A", err)
	}
	q.filter.Namespace = cmp.Or(namespace, "default")
	return nil
}

// open returns what is to be read.
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
		return fail(errors.New("where is Loki? Say it with --loki-url URL, the environment (HINDSIGHT_LOKI_URL) or --config FILE; or read files with --file PATH"))
	}
	source := &query.Loki{Layout: where.layout, Selection: selection}
	if !q.logql {
		if source.Client, err = loki.New(where.loki); err != nil {
			return fail(err)
		}
	}
	return selection, source, format.Parser{Labels: where.layout.Labels}, nil
}
