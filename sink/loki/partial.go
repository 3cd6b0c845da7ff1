package loki

import (
	"cmp"
	"slices"
	"time"
)

// entryStatus is the outcome for one entry of a push that was rejected in part.
type entryStatus struct {
	state  entryState
	reason string // Loki's message, if the state is entryRejected or entryUnknown
}

type entryState int

const (
	entryPending  entryState = iota // not known to be stored or rejected: it has to be sent again
	entryStored                     // stored
	entryRejected                   // rejected, now and later
	entryUnknown                    // stored or rejected: the rejection does not identify the entry
)

// statuses returns the outcome for each entry of a push. It returns false if the rejection does not
// match the entries.
func (r *rejection) statuses(entries []entry) ([]entryStatus, bool) {
	if len(entries) == 1 && !r.rateLimited && r.metadataDisallowed == 0 {
		return []entryStatus{{entryRejected, r.reason()}}, true
	}
	if len(r.named) > 0 {
		return r.byIngester(entries)
	}
	return r.byDistributor(entries)
}

// reason returns the message about the first entry.
func (r *rejection) reason() string {
	if len(r.named) > 0 {
		return r.named[0].reason
	}
	return r.groups[0].reason
}

// byDistributor returns the outcomes of a distributor's rejection, which has every rejected entry in
// a group. If an entry fails several checks, Loki reports the first one, in the order of group.rank.
func (r *rejection) byDistributor(entries []entry) ([]entryStatus, bool) {
	statuses := make([]entryStatus, len(entries))
	oldestFirst := make([]int, len(entries))
	for i := range oldestFirst {
		oldestFirst[i] = i
	}
	slices.SortStableFunc(oldestFirst, func(a, b int) int { return entries[a].time.Compare(entries[b].time) })

	// assign rejects the first pending entries that match a group, as many as it counts.
	// If exact, there must be no further matches.
	assign := func(g *group, order []int, exact bool, matches func(*entry) bool) bool {
		n := g.count
		for _, i := range order {
			if statuses[i].state != entryPending || !matches(&entries[i]) {
				continue
			}
			if n == 0 {
				return !exact
			}
			statuses[i] = entryStatus{entryRejected, g.reason}
			n--
		}
		return n == 0
	}
	inSecond := func(second time.Time) func(*entry) bool {
		return func(e *entry) bool { return e.time.Unix() == second.Unix() }
	}
	newestFirst := slices.Clone(oldestFirst)
	slices.Reverse(newestFirst)

	groups := slices.Clone(r.groups)
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(a.rank(), b.rank()) })
	for i := range groups {
		g := &groups[i]
		ok := false
		switch g.rank() {
		case 0:
			ok = assign(g, oldestFirst, false, inSecond(g.oldest))
		case 1:
			ok = assign(g, newestFirst, false, inSecond(g.newest))
		case 2:
			ok = assign(g, oldestFirst, true, func(e *entry) bool { return len(e.line) == g.line })
		case 3:
			ok = assign(g, oldestFirst, true, func(e *entry) bool { return e.metadataSize() == g.metadata })
		case 4:
			ok = assign(g, oldestFirst, true, func(e *entry) bool { return len(e.metadata) == g.pairs })
		}
		if !ok {
			return nil, false
		}
	}
	disallowed := r.metadataDisallowed
	for i := range statuses {
		switch {
		case statuses[i].state != entryPending:
		case r.metadataDisallowed > 0 && len(entries[i].metadata) > 0:
			disallowed-- // stays pending
		default:
			statuses[i].state = entryStored
		}
	}
	return statuses, disallowed == 0
}

// rank returns the position of the group's check among the checks of Loki.
func (g *group) rank() int {
	switch {
	case !g.oldest.IsZero():
		return 0
	case !g.newest.IsZero():
		return 1
	case g.line > 0:
		return 2
	case g.metadata > 0:
		return 3
	default:
		return 4
	}
}

// byIngester returns the outcomes of an ingester's rejection, which names the first ten rejected
// entries in their order.
func (r *rejection) byIngester(entries []entry) ([]entryStatus, bool) {
	statuses := make([]entryStatus, len(entries))
	if r.outOf > len(entries) {
		return nil, false
	}
	last := -1
	for k := range r.named {
		n := &r.named[k]
		i := findEntry(entries, statuses, n)
		if i < 0 {
			return nil, false
		}
		if !n.rateLimited {
			statuses[i] = entryStatus{entryRejected, n.reason}
		}
		last = max(last, i)
	}
	// If the ingester received fewer entries, the distributor has rejected the others
	// without reporting it. If it limits the rate, it may not report all other rejections.
	// The remaining entries are sent again; Loki recognizes those that are stored.
	if r.rateLimited || r.outOf < len(entries) {
		return statuses, true
	}
	for i := range statuses[:last+1] {
		if statuses[i].state == entryPending {
			statuses[i].state = entryStored
		}
	}
	r.inferUnnamed(entries, statuses, last)
	return statuses, true
}

// findEntry returns the index of a named entry, or -1. Of several entries with its time it is the
// last: the bound for accepted times only grows.
func findEntry(entries []entry, statuses []entryStatus, n *ingesterRejection) int {
	for i := len(entries) - 1; i >= 0; i-- {
		if statuses[i].state == entryPending && entries[i].time.Equal(n.time) {
			return i
		}
	}
	return -1
}

// inferUnnamed decides about the entries after the last named one.
func (r *rejection) inferUnnamed(entries []entry, statuses []entryStatus, last int) {
	unnamed := r.total - len(r.named)
	reason := r.named[len(r.named)-1].reason
	var cutoff time.Time
	for i := range r.named {
		if c := r.named[i].cutoff; c.After(cutoff) {
			cutoff = c
		}
	}
	// Entries older than the cutoff of an earlier rejection are rejected. If Loki counts
	// as many, these are the unnamed ones.
	older := 0
	for i := last + 1; i < len(entries); i++ {
		if entries[i].time.Before(cutoff) {
			older++
		}
	}
	for i := last + 1; i < len(entries); i++ {
		switch {
		case unnamed == 0:
			statuses[i].state = entryStored
		case unnamed == older && entries[i].time.Before(cutoff):
			statuses[i] = entryStatus{entryRejected, reason}
		case unnamed == older:
			statuses[i].state = entryStored
		default:
			statuses[i] = entryStatus{entryUnknown, reason}
		}
	}
}
