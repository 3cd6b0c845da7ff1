package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/file"
	"github.com/hindsight-events/hindsight/query/loki"
)

// selectionFlags are the flags that select stored Events and name their source. The commands query
// and timeline have them.
type selectionFlags struct {
	filter        query.Filter
	span          query.TimeRange
	allNamespaces bool
	utc           bool
	from          sourceFlags
	kubeconfig    string
	context       string
}

func (s *selectionFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&s.filter.Namespace, "namespace", "n", "", "`NAMESPACE` of the Events")
	f.BoolVarP(&s.allNamespaces, "all-namespaces", "A", false, "show the Events of all namespaces")
	f.StringVar(&s.filter.For, "for", "", "involved `OBJECT`, as in pod/web-0, deployments.apps/web or no/a")
	f.StringSliceVar(&s.filter.Types, "types", nil, "`TYPE` or several: Normal, Warning or the custom type of a controller")
	f.StringSliceVar(&s.filter.Reasons, "reason", nil, "`REASON` or several")
	f.StringVar(&s.filter.Node, "node", "", "involved or reporting `NODE`")
	f.StringVar(&s.filter.Cluster, "cluster", "", "label cluster (default: from --config, else any)")
	f.StringVar(&s.filter.Grep, "grep", "", "regular expression (`RE2`) that the message contains")
	f.StringVarP(&s.filter.Selector, "selector", "l", "", "`SELECTOR` of fields and labels, as in {reason=~\"Preempted|Evicted\"}")
	f.StringVar(&s.span.Since, "since", "", "show Events of the last `DURATION`, as in 30m or 7d (default 24h)")
	f.StringVar(&s.span.From, "from", "", "start `TIME`")
	f.StringVar(&s.span.To, "to", "", "end `TIME`, exclusive (default now)")
	f.BoolVar(&s.utc, "utc", false, "read and write times in UTC")
	s.from.register(cmd, "configuration `FILE` of Hindsight with the sink to read")
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` with the default namespace")
	f.StringVar(&s.context, "context", "", "`CONTEXT` of the kubeconfig")
	cmd.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
}

// times returns the range, and whether the local zone, or UTC with --utc, was assumed for it.
func (s *selectionFlags) times(now time.Time) (from, to time.Time, assumed bool, err error) {
	s.span.Zone = time.Local
	if s.utc {
		s.span.Zone = time.UTC
	}
	return s.span.Times(now)
}

// assumedZone describes the range, of which the zone was assumed.
func (s *selectionFlags) assumedZone(from, to time.Time) string {
	return fmt.Sprintf("searching from %s to %s; times without a zone are in %s",
		from.Format(time.RFC3339), to.Format(time.RFC3339), zoneName(s.span.Zone))
}

// zoneName describes a time zone.
func zoneName(zone *time.Location) string {
	if zone == time.UTC {
		return "UTC"
	}
	return time.Now().In(zone).Format("local time (MST, -07:00)")
}

// chooseNamespace sets the default namespace, as kubectl does.
func (s *selectionFlags) chooseNamespace() (err error) {
	if s.allNamespaces || s.filter.Namespace != "" || query.ClusterScoped(s.filter.For) {
		return nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = s.kubeconfig
	s.filter.Namespace, err = defaultNamespace(rules, &clientcmd.ConfigOverrides{CurrentContext: s.context})
	return err
}

// open returns the selection and its source. With logql, the source may be a Loki without a client,
// which only tells the query.
func (s *selectionFlags) open(logql bool) (*query.Selection, query.Source, format.Parser, error) {
	selection, store, err := s.openStore(logql)
	if err != nil {
		return nil, nil, format.Parser{}, err
	}
	return selection, store.source(selection), store.parser, nil
}

// store is the Loki or the files with the Events.
type store struct {
	files  *file.Files // nil: Loki
	path   string      // of the files
	client *loki.Client
	layout query.Layout
	parser format.Parser
}

// source returns the source of a selection. The sources of a store share its files or its client.
func (s store) source(selection *query.Selection) query.Source {
	if s.files != nil {
		return query.Files{Files: s.files, Selection: selection}
	}
	return &query.Loki{Client: s.client, Layout: s.layout, Selection: selection}
}

// name names the store for people.
func (s store) name() string {
	if s.files != nil {
		return s.path
	}
	return "Loki " + s.client.URL()
}

// close closes the files.
func (s store) close() {
	if s.files != nil {
		s.files.Close()
	}
}

// anew is like source, but shares no files, so that it can be read while another source is.
func (s store) anew(selection *query.Selection) query.Source {
	if s.files != nil {
		if files, err := file.Open(s.path); err == nil { // it was opened before
			s.files = files
		}
	}
	return s.source(selection)
}

func (s *selectionFlags) openStore(logql bool) (*query.Selection, store, error) {
	where, err := s.from.readSource()
	if err != nil {
		return nil, store{}, err
	}
	if where.cluster != "" && s.filter.Cluster == "" && where.file == "" {
		s.filter.Cluster = where.cluster
	}
	selection, err := query.NewSelection(s.filter)
	if err != nil {
		return nil, store{}, err
	}
	if where.file != "" {
		if err := selection.CheckFiles(); err != nil {
			return nil, store{}, err
		}
		files, err := file.Open(where.file)
		return selection, store{files: files, path: where.file}, err
	}
	opened := store{layout: where.layout, parser: format.Parser{Labels: where.layout.Labels}}
	switch {
	case logql:
	case where.loki.URL == nil:
		err = errNoLoki
	default:
		opened.client, err = loki.New(where.loki)
	}
	return selection, opened, err
}
