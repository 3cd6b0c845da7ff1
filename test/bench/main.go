// Command bench measures the cost of Hindsight as a separate process against a simulated
// API server and Loki (../sim), and compares it with the floor: the typed client that decodes
// the same Events and does nothing (./floor).
//
//	go run ./test/bench [-run backlog] [-pairs 10] [-json FILE] [-profile DIR]
//	go run ./test/bench -run backlog-1m -exec 'systemd-run --scope -q -p MemoryMax=64M -p MemorySwapMax=0'
//
// It needs Go only, and Linux for the scenarios at a rate. The scenario "loki" uses a real Loki, and
// is skipped without one: see cluster.FindLoki.
//
// All processes share the processors, so compare figures of one run only. Of several pairs, the one
// with the median ratio of CPU is reported, with the most memory of all.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

func main() {
	var o options
	run := flag.String("run", ".", "only the scenarios that match this `regexp`")
	flag.IntVar(&o.pairs, "pairs", 0, "how many `pairs` of the floor and Hindsight, one after the other; 0: three, and one of the scenarios at a rate and with Loki")
	flag.StringVar(&o.json, "json", "", "write the figures to this `file` too")
	flag.StringVar(&o.profiles, "profile", "", "leave profiles of Hindsight in this `folder`: of CPU, of the heap and of all allocations; that costs it some CPU and memory")
	flag.IntVar(&o.profileSeconds, "profile-seconds", 5, "for how many `seconds` CPU is profiled, from the start on")
	execute := flag.String("exec", "", "run Hindsight with this `command`, which has to exec it; for example to limit memory or processors")
	flag.BoolVar(&o.check, "check", false, "fail if a target is missed")
	flag.IntVar(&o.minutes, "minutes", 0, "for how many `minutes` loki-steady writes Events; 0: one")
	peer := flag.String("peer", "", "measure this `command` too, an exporter, in the scenarios at a rate. $BENCH_SERVER is the URL of the API server, $BENCH_LOKI that of Loki, $BENCH_LISTEN a free address, and $BENCH_DIR a folder; they are in its environment, too")
	flag.Var(&o.env, "env", "`NAME=VALUE` for the environment of Hindsight; may be repeated")
	flag.BoolVar(&o.keep, "keep", false, "leave logs and binaries")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() (err error) {
		if o.run, err = regexp.Compile(*run); err != nil {
			return fmt.Errorf("-run: %w", err)
		}
		o.exec = strings.Fields(*execute)
		if *peer != "" {
			o.peer = strings.Fields(*peer)
		}
		return bench(ctx, o)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	run            *regexp.Regexp
	pairs          int
	json           string
	profiles       string
	profileSeconds int
	env            list
	exec           []string
	peer           []string
	minutes        int
	check          bool
	keep           bool
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func bench(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "hindsight-bench-*")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep || err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "left for a look:", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	b := &bencher{options: o, dir: dir, patience: 5 * time.Minute}
	if err := b.build(ctx); err != nil {
		return err
	}
	r := report{Machine: describe(), BinaryBytes: b.binaryBytes}
	r.writeHead(os.Stdout)
	for _, s := range scenarios {
		if !o.run.MatchString(s.name) {
			continue
		}
		if s.loki {
			found, err := cluster.FindLoki(ctx)
			if errors.Is(err, cluster.ErrNotInstalled) {
				fmt.Fprintf(os.Stderr, "scenario %s is left out: %v\n", s.name, err)
				continue
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "scenario %s: Loki %s\n", s.name, found.Version)
		}
		rows, err := b.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		r.Scenarios = append(r.Scenarios, rows...)
		for _, f := range rows {
			f.write(os.Stdout)
		}
	}
	r.writeNotes(os.Stdout)
	if o.json != "" {
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.check && slices.ContainsFunc(r.Scenarios, func(f figures) bool { return len(f.Misses) > 0 }) {
		return errors.New("targets were missed")
	}
	return nil
}
