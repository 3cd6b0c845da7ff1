package timeline

import (
	"context"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query/objects"
)

// scheduling are the reasons of Events that every preemptor has: it was not scheduled, then it was.
var scheduling = []string{"FailedScheduling", "Scheduled", "TriggeredScaleUp", "NotTriggerScaleUp"}

// readPreemptors reads who preempted the pods, by uid in all namespaces: their Events in a short range,
// those of their scheduling in a longer one; and the Events of their owners.
func (g *gatherer) readPreemptors(ctx context.Context) error {
	g.relate()
	var (
		readings []reading
		ids      []string
		from, to time.Time
		seen     = map[string]time.Time{}
		named    = map[objects.Object]time.Time{}
		where    = g.base
	)
	if g.To.Sub(g.From) > began { // other reasons are most of the streams
		where = where.WithAny(event.FieldReason, scheduling...)
	}
	flush := func() {
		switch {
		case len(ids) == 0:
		case len(readings) < maxBatches:
			readings = append(readings, reading{what: "preemptors", selection: where.WithAny(event.FieldUID, ids...), from: from.Add(-before), to: to.Add(after)})
		default:
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
			named[p.Preemptor] = p.at
			continue
		}
		if o, ok := g.graph.Named(p.UID); !seen[p.UID].IsZero() || ok && g.covers(o) {
			continue
		}
		if len(ids)*37 > batchBytes || len(ids) > 0 && p.at.Sub(to) > began { // not to search the time between
			flush()
		}
		if len(ids) == 0 {
			from = p.at
		}
		to = p.at
		ids, seen[p.UID] = append(ids, p.UID), p.at
	}
	flush()
	if err := g.read(ctx, readings...); err != nil {
		return err
	}
	wanted := map[objects.Object]time.Time{}
	for o, at := range named {
		wanted[o] = at
		g.addOwners(wanted, o, at)
	}
	for id, at := range seen {
		if o, ok := g.graph.Named(id); ok {
			g.addOwners(wanted, o, at)
		} else {
			g.unknown++
		}
	}
	return g.readNamed(ctx, wanted)
}

// addOwners adds the owners of a preemptor.
func (g *gatherer) addOwners(all map[objects.Object]time.Time, o objects.Object, at time.Time) {
	for range maxRounds {
		owner, _, ok := g.graph.Owner(o)
		if !ok || owner.Kind == "Node" {
			return
		}
		o = owner
		if _, ok := all[o]; !ok {
			all[o] = at
		}
	}
}

// readNamed reads the Events about objects that had to do with a preemption at a time.
func (g *gatherer) readNamed(ctx context.Context, wanted map[objects.Object]time.Time) error {
	var all []objects.Object
	for o := range wanted {
		if !g.covers(o) {
			all = append(all, o)
		}
	}
	readings, err := g.named("Events of preemptors", all, func(o objects.Object) (from, to time.Time) {
		from, to = wanted[o].Add(-began), wanted[o].Add(before)
		if from.Before(g.From) {
			from = g.From
		}
		if to.After(g.To) {
			to = g.To
		}
		return from, to
	})
	if err != nil {
		return err
	}
	return g.read(ctx, readings...)
}
