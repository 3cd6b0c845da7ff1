package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/timeline"
	"github.com/hindsight-events/hindsight/query/timeline/page"
)

// timelineOutputs are the values of --output.
var timelineOutputs = []string{"text", "markdown", "json", "html"}

// timelineFlags are the flags of hindsight timeline.
type timelineFlags struct {
	selectionFlags
	around  string
	within  string
	output  string
	allRows bool
}

func timelineCommand() *cobra.Command {
	var q timelineFlags
	cmd := &cobra.Command{
		Use:   "timeline [flags]",
		Short: "Tell what happened to a workload, a namespace, a node or the cluster on one page",
		Long: `Tell what happened, to whom, because of whom and in what order: for a workload
(--for), a namespace (-n), a node (--node) or all namespaces (-A), from Loki or files.

The Events of what the object owns and of its owners belong to it, and those of its
pods' nodes and of the pods that preempted them, also in other namespaces. Uids in
messages become names. Equal Events of many objects are one row, and so are the
steps of a rollout; gaps, in which Events may be missing, are rows too.

The page has at most ` + fmt.Sprint(timeline.PageRows) + ` rows and says what it leaves out; --all-rows shows all.
-o html is one file with all rows and Events, to zoom, filter and open them; -o json
is the same as data.

The flags that select Events and name their source are those of query: see
"hindsight query --help", also for times. The default range is the last 24 hours.`,
		Example: timelineExamples,
		Args:    cobra.NoArgs,
	}
	q.selectionFlags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&q.around, "around", "", "a `TIME`, or an Event by its name or uid: show what was --within of it")
	f.StringVar(&q.within, "within", "15m", "`DURATION` before and after --around")
	f.StringVarP(&q.output, "output", "o", "text", "`FORMAT`: "+strings.Join(timelineOutputs, ", "))
	f.BoolVar(&q.allRows, "all-rows", false, "show all rows and whole messages, not only what fits on a page")
	addCompletions(cmd, &q.selectionFlags, timelineOutputs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := q.run(cmd)
		if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
			return errInterrupted
		}
		return err
	}
	return cmd
}

const timelineExamples = `  # an outage of a Deployment last Friday, with whatever it owns and whoever preempted it
  hindsight timeline -n prod-metrics --for deployment/ingester --from "friday 11:15" --to "friday 11:45"

  # for the post-mortem
  hindsight timeline -n prod-metrics --from "friday 11:15" --to "friday 11:45" -o markdown > outage.md

  # to zoom and filter in a browser
  hindsight timeline -n prod-metrics --from "friday 11:15" --to "friday 11:45" -o html > outage.html

  # a node, its pods and what happened to them
  hindsight timeline --node node-3 --since 6h

  # all namespaces, half an hour around a time
  hindsight timeline -A --around "friday 11:20" --within 15m

  # around an Event, as query -o name prints it
  hindsight timeline -n prod --around event/web-0.18ea070f50e0a374 --since 7d

  # Warnings of a week, from files
  hindsight timeline -A --types Warning --since 7d --file /var/log/hindsight/events.jsonl`

// memoryLimit bounds the heap while it holds less: a timeline of 200,000 Events needs some 70 MB, and
// garbage as much again.
const memoryLimit = 110 << 20

func (q *timelineFlags) run(cmd *cobra.Command) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryLimit))
	}
	if err := q.check(); err != nil {
		return err
	}
	from, to, assumed, err := q.times(time.Now())
	if err != nil {
		return err
	}
	if q.filter.Node == "" || q.filter.For != "" { // a node is looked for in all namespaces, like no/NAME
		if err := q.chooseNamespace(); err != nil {
			return err
		}
	}
	selection, store, err := q.openStore(false)
	if err != nil {
		return err
	}
	defer store.close()
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	warn := func(message string) { fmt.Fprintf(stderr, "hindsight: %s\n", message) }
	for _, note := range selection.Notes {
		warn(note)
	}
	request := timeline.Request{Open: store.source, Parser: store.parser, Filter: q.filter, From: from, To: to}
	if _, ok := terminal(stderr); ok {
		request.Progress = query.NewProgress(stderr, from, to)
	}
	if q.around != "" {
		if assumed, err = q.surround(cmd.Context(), &request); err != nil {
			return err
		}
	}
	if assumed {
		warn(q.assumedZone(request.From, request.To))
	}
	t, err := timeline.Make(cmd.Context(), request, q.title(), q.asked(store, request))
	request.Progress.Clear()
	if err != nil {
		return failed(err)
	}
	if t.Totals.Events == 0 {
		warn(query.ExplainEmpty(cmd.Context(), store.source(selection), selection, request.From.In(q.span.Zone), request.To.In(q.span.Zone)))
		if q.output == "text" {
			return nil
		}
	}
	out := bufio.NewWriterSize(stdout, 64<<10)
	if err := q.write(out, stdout, t); err != nil {
		return failed(err)
	}
	return failed(out.Flush())
}

// check finds flags that exclude each other.
func (q *timelineFlags) check() error {
	known := false
	for _, name := range timelineOutputs {
		known = known || name == q.output
	}
	if !known {
		return fmt.Errorf("-o %s: want one of %s", q.output, strings.Join(timelineOutputs, ", "))
	}
	if _, err := query.ParseDuration(q.within); err != nil {
		return fmt.Errorf("--within: %w", err)
	}
	return nil
}

// surround sets the range of a request to what --around names, and returns whether the zone was
// assumed. An Event is searched in the range of the other flags.
func (q *timelineFlags) surround(ctx context.Context, r *timeline.Request) (assumed bool, err error) {
	at, assumed, err := query.ParseTime(q.around, time.Now(), q.span.Zone)
	switch {
	case err == nil && (q.span.From != "" || q.span.To != "" || q.span.Since != ""):
		return false, errors.New("--around with a time is a range: remove --from, --to and --since")
	case err != nil:
		assumed = false
		if at, err = timeline.Around(ctx, *r, q.around); err != nil {
			return false, failed(fmt.Errorf("--around: %w", err))
		}
	}
	within, err := query.ParseDuration(q.within)
	r.From, r.To = at.Add(-within), at.Add(within)
	return assumed, err
}

// title returns the title: the object, the node or the namespace.
func (q *timelineFlags) title() string {
	f := &q.filter
	switch {
	case f.For != "" && (f.Namespace == "" || query.ClusterScoped(f.For)):
		return f.For
	case f.For != "":
		return f.For + " in " + f.Namespace
	case f.Node != "":
		return "node/" + f.Node
	case f.Namespace != "":
		return "namespace " + f.Namespace
	}
	return "all namespaces"
}

// asked describes the request for the page.
func (q *timelineFlags) asked(s store, r timeline.Request) timeline.Query {
	f := &r.Filter
	asked := timeline.Query{
		Namespace: f.Namespace, For: f.For, Node: f.Node, Cluster: q.filter.Cluster, Around: q.around,
		From: r.From.UTC(), To: r.To.UTC(), Source: s.name(), Zone: q.span.Zone.String(),
	}
	add := func(flag, value string) {
		if value != "" {
			asked.Filters = append(asked.Filters, flag+" "+value)
		}
	}
	add("--types", strings.Join(f.Types, ","))
	add("--reason", strings.Join(f.Reasons, ","))
	add("--grep", f.Grep)
	add("-l", f.Selector)
	add("--cluster", q.filter.Cluster)
	return asked
}

// write writes t in the format of --output.
func (q *timelineFlags) write(w, stdout io.Writer, t *timeline.Timeline) error {
	style := timeline.Style{Zone: q.span.Zone, AllRows: q.allRows}
	switch q.output {
	case "json":
		return timeline.WriteJSON(w, t)
	case "markdown":
		return timeline.WriteMarkdown(w, t, style)
	case "html":
		return page.Write(w, t)
	}
	if width, ok := terminal(stdout); ok {
		style.Width = width
		style.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return timeline.WriteText(w, t, style)
}
