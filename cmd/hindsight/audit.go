package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hindsight-events/hindsight/audit"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/query/loki"
)

// auditFlags are those of hindsight audit.
type auditFlags struct {
	connection    *connection
	namespace     string
	allNamespaces bool
	cluster       string
	from          sourceFlags
	settle        time.Duration
	every         time.Duration
	limit         int
	output        string
}

const auditExamples = `  # is everything that the cluster has now in the Loki of Hindsight's configuration?
  hindsight audit -A --config /etc/hindsight/config.yaml

  # the same for one namespace, and a Loki that is named here
  hindsight audit -n prod --loki-url http://loki-gateway.monitoring --cluster prod-eu-1

  # the files of a file sink
  hindsight audit -A --file /var/log/hindsight/events.jsonl

  # every ten minutes, until it is interrupted, a line of JSON each time
  hindsight audit -A --config /etc/hindsight/config.yaml --watch 10m -o json`

func auditCommand() *cobra.Command {
	var a auditFlags
	cmd := &cobra.Command{
		Use:   "audit [flags]",
		Short: "Compare the Events of the cluster with what was stored of them",
		Long: `Compare the Events that the API server holds now with what Loki or the files of a
file sink hold: of each Event the latest state, by uid and resourceVersion. It is
decided here, from the Event alone, what should be there, and none of what ships
Events is used for it.

Each difference is a line:

  missing    the state is not stored
  repeated   it is stored more than once, and readers see that
  mistimed   it is stored under another time than it should be
  altered    what is stored says something else
  explained  it is not stored, for a reason: dropped by a rule or not matched (with
             --config), inside a declared gap, before the first start

The last line sums up. What is missing and younger than --settle is looked for
again before it is called missing.

The exit code is 0 if there are no differences but explained ones, 1 if there are
some, 2 if nothing could be compared. The only permission that is needed is to
list events.

Where Loki is, is said as for hindsight query. Without -n or -A, the namespace is
that of the kubeconfig's current context, else "default".`,
		Example: auditExamples,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	a.connection = connectionFlags(f)
	f.StringVarP(&a.namespace, "namespace", "n", "", "`NAMESPACE` of the Events")
	f.BoolVarP(&a.allNamespaces, "all-namespaces", "A", false, "Events of all namespaces")
	f.StringVar(&a.cluster, "cluster", "", "the label cluster (default: that of --config; else any)")
	a.from.register(cmd, "configuration `FILE` of Hindsight, whose sink is read and whose rules explain what is not there")
	f.DurationVar(&a.settle, "settle", 30*time.Second, "how long a state may take until it is stored")
	f.DurationVar(&a.every, "watch", 0, "audit again and again, each `INTERVAL`, until interrupted (default: once)")
	f.IntVar(&a.limit, "limit", 20, "list at most `N` findings of one kind and reason; 0: all")
	f.StringVarP(&a.output, "output", "o", "text", "`FORMAT`: text or json")
	cmd.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.run(cmd) }
	return cmd
}

func (a *auditFlags) run(cmd *cobra.Command) error {
	switch {
	case a.output != "text" && a.output != "json":
		return fmt.Errorf("--output: %q is unknown; valid are text and json", a.output)
	case a.settle < 0:
		return errors.New("--settle: must not be less than 0s")
	case a.limit < 0:
		return errors.New("--limit: must not be less than 0")
	case a.every < 0, a.every == 0 && cmd.Flags().Changed("watch"):
		return errors.New("--watch: must be more than 0s")
	}
	log := newLogger(cmd, config.Default())
	o, err := a.options(log)
	if err != nil {
		return err
	}
	stdout := cmd.OutOrStdout()
	if a.every > 0 {
		return a.repeat(cmd.Context(), log, o, stdout)
	}
	r, err := audit.Run(cmd.Context(), o)
	switch {
	case cmd.Context().Err() != nil:
		return errInterrupted
	case err != nil:
		return err
	}
	if err := a.write(stdout, r); err != nil {
		return err
	}
	return differences(r)
}

// differences is an error of the work itself, and so the exit code 1.
func differences(r *audit.Result) error {
	if r.Clean() {
		return nil
	}
	return failed(errors.New("what is stored is not what the API server has"))
}

func (a *auditFlags) write(w io.Writer, r *audit.Result) error {
	out := bufio.NewWriterSize(w, 64<<10)
	write := r.WriteText
	if a.output == "json" {
		write = r.WriteJSON
	}
	if err := cmp.Or(write(out), out.Flush()); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// repeat audits until ctx ends, and returns the worst that it has seen:
// differences, else the last error.
func (a *auditFlags) repeat(ctx context.Context, log *slog.Logger, o audit.Options, stdout io.Writer) error {
	var worst error
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		r, err := audit.Run(ctx, o)
		switch {
		case ctx.Err() != nil:
			return worst
		case err != nil:
			log.Error("nothing could be compared", "err", err)
			if worst == nil {
				worst = errors.New("nothing could be compared at least once; the log says why")
			}
		default:
			if err := a.write(stdout, r); err != nil {
				return err
			}
			if err := differences(r); err != nil {
				worst = err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return worst
		}
	}
}

// options says what to audit.
func (a *auditFlags) options(log *slog.Logger) (audit.Options, error) {
	o := audit.Options{
		Namespace: a.namespace,
		Settle:    a.settle,
		Limit:     a.limit,
		Notify:    func(message string) { log.Info(message) },
	}
	if !a.allNamespaces && a.namespace == "" {
		client := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(a.connection.rules, &a.connection.overrides)
		namespace, _, err := client.Namespace()
		if err != nil && !clientcmd.IsEmptyConfig(err) {
			return o, fmt.Errorf("find out the namespace: %w; or say it with -n or -A", err)
		}
		o.Namespace = cmp.Or(namespace, "default")
	}
	where, err := a.from.readSource()
	if err != nil {
		return o, err
	}
	if a.from.config != "" {
		if o.Rules, err = rulesOf(a.from); err != nil {
			return o, err
		}
	}
	switch {
	case where.file != "":
		warned := map[string]bool{} // files are read several times
		o.Store = audit.Files{Path: where.file, Warn: func(problem string) {
			if !warned[problem] {
				warned[problem] = true
				log.Warn("not all that is stored could be read", "problem", problem)
			}
		}}
	case where.loki.URL == nil:
		return o, errors.New("where is Loki? Say it with --loki-url URL, the environment (HINDSIGHT_LOKI_URL) or --config FILE; or read files with --file PATH")
	default:
		client, err := loki.New(where.loki)
		if err != nil {
			return o, err
		}
		o.Store = &audit.Loki{Client: client, Layout: where.layout, Cluster: cmp.Or(a.cluster, where.cluster)}
		o.Parser = format.Parser{Labels: where.layout.Labels}
	}
	cfg, _, err := a.connection.config()
	if err != nil {
		return o, err
	}
	o.Client, err = audit.NewClient(cfg)
	return o, err
}

// rulesOf takes from a configuration, as it is written there, what concerns the
// sink that is read.
func rulesOf(w sourceFlags) (rules audit.Rules, err error) {
	c, err := config.Load(w.config)
	if err != nil {
		return rules, err
	}
	s, err := chooseSink(c, w.sink)
	if err != nil {
		return rules, fmt.Errorf("%s: %w", w.config, err)
	}
	rules.Namespaces, rules.Sink = c.Source.Namespaces, s.Name
	for _, selector := range c.Drop {
		parsed, err := audit.ParseSelector(selector.String())
		if err != nil {
			return rules, fmt.Errorf("%s: drop: %w", w.config, err)
		}
		rules.Drop = append(rules.Drop, parsed)
	}
	for _, selector := range s.Match {
		parsed, err := audit.ParseSelector(selector.String())
		if err != nil {
			return rules, fmt.Errorf("%s: sink %s: match: %w", w.config, s.Name, err)
		}
		rules.Match = append(rules.Match, parsed)
	}
	b, err := yaml.Marshal(c.Redact)
	if err == nil {
		err = yaml.Unmarshal(b, &rules.Redact)
	}
	if err != nil {
		return rules, fmt.Errorf("%s: redact: %w", w.config, err)
	}
	return rules, nil
}
