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

	"github.com/hindsight-events/hindsight/audit"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/query/loki"
)

// auditFlags are the flags of hindsight audit.
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

const auditExamples = `  # compare all Events of the cluster with the Loki of Hindsight's configuration
  hindsight audit -A --config /etc/hindsight/config.yaml

  # one namespace, and the address of Loki
  hindsight audit -n prod --loki-url http://loki-gateway.monitoring --cluster prod-eu-1

  # the files of a file sink
  hindsight audit -A --file /var/log/hindsight/events.jsonl

  # every ten minutes, a line of JSON each time
  hindsight audit -A --config /etc/hindsight/config.yaml --watch 10m -o json`

func auditCommand() *cobra.Command {
	var a auditFlags
	cmd := &cobra.Command{
		Use:   "audit [flags]",
		Short: "Compare the Events of the cluster with the exported ones",
		Long: `Compare the latest state of each Event in the API server, by uid and
resourceVersion, with the lines in Loki or in the files of a file sink. The audit
derives the expected lines from the Events with code of its own, independent of
the export.

Each difference is a line:

  missing    the state is not stored
  repeated   the state is stored more than once, visibly to readers
  mistimed   the state is stored with a different time
  altered    the stored line differs from the Event
  explained  the state is not stored for a known reason: dropped by a rule or not
             matched (with --config), inside a declared gap, before the first start

The last line is a summary. A missing state that is younger than --settle is
looked up again before it is reported.

The exit code is 0 without differences other than explained ones, 1 with
differences, 2 if the comparison failed. The required permission is to list
events.

The address of Loki and the namespace are chosen as by hindsight query.`,
		Example: auditExamples,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	a.connection = connectionFlags(f)
	f.StringVarP(&a.namespace, "namespace", "n", "", "`NAMESPACE` of the Events")
	f.BoolVarP(&a.allNamespaces, "all-namespaces", "A", false, "compare the Events of all namespaces")
	f.StringVar(&a.cluster, "cluster", "", "label cluster (default: from --config, else any)")
	a.from.register(cmd, "configuration `FILE` of Hindsight with the sink to read and the rules that explain missing states")
	f.DurationVar(&a.settle, "settle", 30*time.Second, "time in which a state must be stored")
	f.DurationVar(&a.every, "watch", 0, "repeat the audit every `INTERVAL` until interrupted (default: once)")
	f.IntVar(&a.limit, "limit", 20, "list at most `N` differences of one kind and reason; 0: all")
	f.StringVarP(&a.output, "output", "o", "text", "`FORMAT`: text or json")
	cmd.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.run(cmd) }
	return cmd
}

func (a *auditFlags) run(cmd *cobra.Command) error {
	switch {
	case a.output != "text" && a.output != "json":
		return fmt.Errorf("--output: unknown format %q, want text or json", a.output)
	case a.settle < 0:
		return errors.New("--settle must not be negative")
	case a.limit < 0:
		return errors.New("--limit must not be negative")
	case a.every < 0, a.every == 0 && cmd.Flags().Changed("watch"):
		return errors.New("--watch must be positive")
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

// differences returns an error if the audit has found unexplained differences.
func differences(r *audit.Result) error {
	if r.Clean() {
		return nil
	}
	return failed(errors.New("the stored Events differ from those of the API server"))
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

// repeat audits until ctx ends. It returns an error if there were differences, else if an audit
// failed.
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
			log.Error("audit failed", "err", err)
			if worst == nil {
				worst = errors.New("at least one audit failed; see the log")
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

// options returns the options of the audit.
func (a *auditFlags) options(log *slog.Logger) (audit.Options, error) {
	o := audit.Options{
		Namespace: a.namespace,
		Settle:    a.settle,
		Limit:     a.limit,
		Notify:    func(message string) { log.Info(message) },
	}
	var err error
	if !a.allNamespaces && a.namespace == "" {
		if o.Namespace, err = defaultNamespace(a.connection.rules, &a.connection.overrides); err != nil {
			return o, err
		}
	}
	where, err := a.from.readSource()
	if err != nil {
		return o, err
	}
	if a.from.config != "" {
		if o.Rules, err = readRules(a.from); err != nil {
			return o, err
		}
	}
	switch {
	case where.file != "":
		warned := map[string]bool{} // each file is read several times
		o.Store = audit.Files{Path: where.file, Warn: func(problem string) {
			if !warned[problem] {
				warned[problem] = true
				log.Warn("a part of the files could not be read", "problem", problem)
			}
		}}
	case where.loki.URL == nil:
		return o, errNoLoki
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

// readRules reads the rules of a configuration that apply to the sink.
func readRules(w sourceFlags) (rules audit.Rules, err error) {
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
