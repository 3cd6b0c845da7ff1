package lease

import (
	"slices"

	"github.com/hindsight-events/hindsight/event"
)

// maxGaps are kept.
const maxGaps = 8

// MergeGaps returns at most eight gaps, oldest first, in which every state lies
// that lies in one of the given ones (InGap). Where there are more, the two
// oldest of one source and one sink become one gap that spans both and what is
// between them; if there are none, the two oldest of one source, for all sinks;
// if there are none, the two oldest, for all sources and sinks. So a gap only
// becomes wider: what lies in it too much comes again, nothing is skipped.
func MergeGaps(gaps []event.Gap) []event.Gap {
	gaps = slices.Clone(gaps)
	for len(gaps) > maxGaps {
		i, j := oldestPair(gaps)
		gaps[i] = span(gaps[i], gaps[j])
		gaps = slices.Delete(gaps, j, j+1)
	}
	return gaps
}

func oldestPair(gaps []event.Gap) (i, j int) {
	for _, alike := range []func(a, b event.Gap) bool{
		func(a, b event.Gap) bool { return a.Source == b.Source && a.Sink == b.Sink },
		func(a, b event.Gap) bool { return a.Source == b.Source },
	} {
		for i := range gaps {
			for j := i + 1; j < len(gaps); j++ {
				if alike(gaps[i], gaps[j]) {
					return i, j
				}
			}
		}
	}
	return 0, 1
}

// span returns one gap for two.
func span(a, b event.Gap) event.Gap {
	g := event.Gap{Namespace: a.Namespace, MissedAtLeast: a.MissedAtLeast + b.MissedAtLeast}
	if a.Source == b.Source {
		g.Source = a.Source
	}
	if a.Sink == b.Sink {
		g.Sink = a.Sink
	}
	if a.Cause == b.Cause {
		g.Cause = a.Cause
	}
	if !oneCluster(a.From, a.To, b.From, b.To) {
		return g // positions of two clusters have no order: this gap has no ends
	}
	g.From, g.To = a.From, a.To
	if b.From.Compare(g.From) < 0 {
		g.From = b.From
	}
	if !g.To.IsZero() && (b.To.IsZero() || b.To.Compare(g.To) > 0) {
		g.To = b.To
	}
	return g
}

// oneCluster reports whether all positions that there are belong to one cluster.
func oneCluster(positions ...event.Position) bool {
	positions = slices.DeleteFunc(positions, event.Position.IsZero)
	return !slices.ContainsFunc(positions, func(p event.Position) bool {
		return p.Epoch.Cluster != positions[0].Epoch.Cluster
	})
}

// InGap reports whether a state of a source may have been missed by a sink: it
// lies in one of the gaps, after From and not after To. A gap without a source
// or sink is one of all of them; a zero From is the beginning, a zero To has
// not come yet. A position of another cluster is neither before nor after.
func InGap(gaps []event.Gap, sink, source string, state event.Position) bool {
	return slices.ContainsFunc(gaps, func(g event.Gap) bool {
		return (g.Sink == "" || g.Sink == sink) &&
			(g.Source == "" || g.Source == source) &&
			(g.From.IsZero() || !reached(g.From, state)) &&
			(g.To.IsZero() || !state.Epoch.SameCluster(g.To.Epoch) || reached(g.To, state))
	})
}

// reached reports whether a state is at or before a position of its cluster.
// While a list is taken in, the states before the position have been.
func reached(p, state event.Position) bool {
	p.Listed, state.Listed = 0, 0
	return state.Epoch.SameCluster(p.Epoch) && state.Compare(p) <= 0
}
