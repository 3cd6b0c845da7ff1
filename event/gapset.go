package event

import "slices"

// maxGaps is the largest number of gaps in a checkpoint.
const maxGaps = 8

// GapSet holds declared gaps, oldest first.
type GapSet []Gap

// Add adds a gap. It replaces the same gap declared before its end was known, and it
// reports false for a gap that is in the set already.
func (s *GapSet) Add(g Gap) bool {
	*s = slices.DeleteFunc(*s, g.Supersedes)
	if slices.Contains(*s, g) {
		return false
	}
	*s = append(*s, g)
	return true
}

// Contains reports whether the sink may have missed a state of the source: whether one
// of the gaps contains it, after From and not after To. A gap without a source or sink
// applies to all of them. A zero From is the beginning; a zero To, or one in another
// cluster, comes after every state.
func (s GapSet) Contains(sink, source string, state Position) bool {
	return slices.ContainsFunc(s, func(g Gap) bool {
		return (g.Sink == "" || g.Sink == sink) &&
			(g.Source == "" || g.Source == source) &&
			(g.From.IsZero() || !g.From.Includes(state)) &&
			(g.To.IsZero() || !state.Epoch.SameCluster(g.To.Epoch) || g.To.Includes(state))
	})
}

// Merge returns at most eight gaps that contain every state that s contains. Where s
// has more, the two oldest gaps of one source and sink are merged into one that spans
// both; without such a pair, the two oldest of one source; else the two oldest. Gaps
// only become wider: a failover then resends more Events, and skips none.
func (s GapSet) Merge() GapSet {
	s = slices.Clone(s)
	for len(s) > maxGaps {
		i, j := s.oldestPair()
		s[i] = span(s[i], s[j])
		s = slices.Delete(s, j, j+1)
	}
	return s
}

func (s GapSet) oldestPair() (i, j int) {
	for _, alike := range []func(a, b Gap) bool{
		func(a, b Gap) bool { return a.Source == b.Source && a.Sink == b.Sink },
		func(a, b Gap) bool { return a.Source == b.Source },
	} {
		for i := range s {
			for j := i + 1; j < len(s); j++ {
				if alike(s[i], s[j]) {
					return i, j
				}
			}
		}
	}
	return 0, 1
}

// span returns one gap that contains both.
func span(a, b Gap) Gap {
	g := Gap{Namespace: a.Namespace, MissedAtLeast: a.MissedAtLeast + b.MissedAtLeast}
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
		return g // positions of two clusters cannot be compared: this gap has no ends
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

// oneCluster reports whether all positions that are not zero belong to one cluster.
func oneCluster(positions ...Position) bool {
	positions = slices.DeleteFunc(positions, Position.IsZero)
	return !slices.ContainsFunc(positions, func(p Position) bool {
		return p.Epoch.Cluster != positions[0].Epoch.Cluster
	})
}
