package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/objects"
	"github.com/hindsight-events/hindsight/query/timeline"
)

// checkTree checks the flags beside --tree.
func (q *queryFlags) checkTree() error {
	if !q.tree {
		return nil
	}
	if q.filter.For == "" {
		return errors.New("--tree needs an object: set --for")
	}
	if kind, name, _ := query.BuiltIn(q.filter.For); kind == "Node" {
		return fmt.Errorf("--tree: a node owns no objects; for its pods, run hindsight timeline --for node/%s", name)
	}
	for flag, set := range map[string]bool{"--watch": q.watch, "--states": q.states} {
		if set {
			return fmt.Errorf("--tree shows Events in their latest state, which several queries find: remove %s", flag)
		}
	}
	return nil
}

// runTree prints the Events about the selected object and about all that it owns.
func (q *queryFlags) runTree(ctx context.Context, r timeline.Request, printer query.Printer, warn func(string)) error {
	g, err := timeline.Gather(ctx, r)
	if err != nil {
		return failed(err)
	}
	defer g.Close()
	var (
		rows     int
		newest   []format.Record             // with --limit
		inferred = map[objects.Object]bool{} // objects, whether they belong here by a naming rule alone
	)
	err = g.Each(ctx, func(r *format.Record) error {
		o := objects.Of(r)
		switch g.Relation(o) {
		case timeline.Selected:
		case timeline.Owned, timeline.Related:
			if _, known := inferred[o]; !known {
				_, evidence := g.Graph.Workload(o)
				inferred[o] = evidence == objects.Inferred
			}
		default:
			return nil
		}
		rows++
		if q.limit == 0 {
			return printer.Print(r)
		}
		if newest = append(newest, *r); len(newest) == 2*q.limit {
			newest = append(newest[:0], newest[q.limit:]...)
		}
		return nil
	})
	for i := max(0, len(newest)-q.limit); i < len(newest) && err == nil; i++ {
		err = printer.Print(&newest[i])
	}
	if flushErr := printer.Flush(); err == nil {
		err = flushErr
	}
	if err != nil {
		return failed(err)
	}
	named := 0
	for _, byName := range inferred {
		if byName {
			named++
		}
	}
	if named > 0 {
		warn(fmt.Sprintf("%d of %d owned objects belong to %s by the naming rules of Kubernetes' controllers; no Event in this range states their owner", named, len(inferred), q.filter.For))
	}
	for _, o := range g.Omissions {
		if o.Count > 0 {
			o.Text = fmt.Sprintf("%d %s", o.Count, o.Text)
		}
		warn("omitted: " + o.Text)
	}
	if rows == 0 {
		warn(fmt.Sprintf("no Events found about %s, or about what it owns, from %s to %s", q.filter.For,
			r.From.In(q.span.Zone).Format(time.RFC3339), r.To.In(q.span.Zone).Format(time.RFC3339)))
	}
	return nil
}
