package timeline

import (
	"context"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query/objects"
)

// readPreemptors reads who preempted the pods: the Events of the preemptors and of their owners.
func (g *gatherer) readPreemptors(ctx context.Context) error {
	g.relate()
	var (
		readings []reading
		ids      []string
		from, to time.Time
		seen     = map[string]bool{}
		others   []objects.Object
	)
	flush := func() {
		if len(ids) > 0 && len(readings) < maxBatches {
			readings = append(readings, reading{what: "preemptors", selection: g.base.WithAny(event.FieldUID, ids...), from: from.Add(-before), to: to.Add(after)})
		} else {
			g.notLookedUp += len(ids)
		}
		ids = nil
	}
	slices.SortStableFunc(g.preemptions, func(a, b preemption) int { return a.at.Compare(b.at) })
	for _, p := range g.preemptions {
		if !g.isOurs(p.victim) {
			continue
		}
		if p.UID == "" {
			others = append(others, p.Preemptor)
			continue
		}
		if o, ok := g.graph.Named(p.UID); seen[p.UID] || ok && g.covers(o) {
			continue
		}
		if len(ids) > 0 && (len(ids)*37 > batchBytes || p.at.Sub(from) > before) {
			flush()
		}
		if len(ids) == 0 {
			from = p.at
		}
		to = p.at
		ids, seen[p.UID] = append(ids, p.UID), true
	}
	flush()
	if err := g.read(ctx, readings...); err != nil {
		return err
	}
	for id := range seen {
		o, ok := g.graph.Named(id)
		if !ok {
			g.unknown++
			continue
		}
		others = append(others, o)
	}
	return g.readOwners(ctx, others)
}

// readOwners reads Events about the owners of preemptors, and about those that were named otherwise
// than by a uid.
func (g *gatherer) readOwners(ctx context.Context, preemptors []objects.Object) error {
	var owners []objects.Object
	known := map[objects.Object]bool{}
	for _, o := range preemptors {
		for range maxRounds {
			if !known[o] && !g.covers(o) {
				owners = append(owners, o)
			}
			known[o] = true
			owner, _, ok := g.graph.Owner(o)
			if !ok || owner.Kind == "Node" {
				break
			}
			o = owner
		}
	}
	readings, err := g.named("Events of preemptors", owners, func(objects.Object) (time.Time, time.Time) { return g.From, g.To })
	if err != nil {
		return err
	}
	return g.read(ctx, readings...)
}
