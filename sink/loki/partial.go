package loki

import (
	"cmp"
	"slices"
	"time"
)

// entryStatus is what became of an entry of a push that was refused in part.
type entryStatus struct {
	kind   entryState
	reason string // in Loki's words, unless it is open or kept
}

type entryState int

const (
	entryPending  entryState = iota // not known to be stored or refused: it has to be sent again
	entryStored                     // it is stored
	entryRejected                   // it is refused for good
	entryUnknown                    // it is one of several of which some are refused, without their names
)

// statuses says what became of each entry of a push. It returns false if what Loki
// says cannot be about these entries.
func (r *rejection) statuses(entries []entry) ([]entryStatus, bool) {
	if len(entries) == 1 && !r.rateLimited && r.metadataDisallowed == 0 {
		return []entryStatus{{entryRejected, r.reason()}}, true
	}
	if len(r.named) > 0 {
		return r.byIngester(entries)
	}
	return r.byDistributor(entries)
}

// reason is what Loki says of the first entry that it names.
func (r *rejection) reason() string {
	if len(r.named) > 0 {
		return r.named[0].reason
	}
	return r.groups[0].reason
}

// byDistributor: every refused entry is in a group. The checks are made in the
// order of the calls below; the first that fails is the one reported.
func (r *rejection) byDistributor(entries []entry) ([]entryStatus, bool) {
	fates := make([]entryStatus, len(entries))
	byTime := make([]int, len(entries))
	for i := range byTime {
		byTime[i] = i
	}
	slices.SortStableFunc(byTime, func(a, b int) int { return entries[a].time.Compare(entries[b].time) })

	// take gives the first n open entries for which is holds to a group. Where
	// all are told apart by what is holds for, there must be no more of them.
	take := func(g *group, order []int, all bool, is func(*entry) bool) bool {
		n := g.count
		for _, i := range order {
			if fates[i].kind != entryPending || !is(&entries[i]) {
				continue
			}
			if n == 0 {
				return !all
			}
			fates[i] = entryStatus{entryRejected, g.reason}
			n--
		}
		return n == 0
	}
	inSecond := func(second time.Time) func(*entry) bool {
		return func(e *entry) bool { return e.time.Unix() == second.Unix() }
	}
	newestFirst := slices.Clone(byTime)
	slices.Reverse(newestFirst)

	groups := slices.Clone(r.groups)
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(a.rank(), b.rank()) })
	for i := range groups {
		g := &groups[i]
		ok := false
		switch g.rank() {
		case 0:
			ok = take(g, byTime, false, inSecond(g.oldest))
		case 1:
			ok = take(g, newestFirst, false, inSecond(g.newest))
		case 2:
			ok = take(g, byTime, true, func(e *entry) bool { return len(e.line) == g.line })
		case 3:
			ok = take(g, byTime, true, func(e *entry) bool { return e.metadataSize() == g.metadata })
		case 4:
			ok = take(g, byTime, true, func(e *entry) bool { return len(e.metadata) == g.pairs })
		}
		if !ok {
			return nil, false
		}
	}
	left := r.metadataDisallowed
	for i := range fates {
		switch {
		case fates[i].kind != entryPending:
		case r.metadataDisallowed > 0 && len(entries[i].metadata) > 0:
			left-- // stays open
		default:
			fates[i].kind = entryStored
		}
	}
	return fates, left == 0
}

// rank is the place of a group's check among Loki's.
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

// byIngester: the first ten refused entries are named, in their order.
func (r *rejection) byIngester(entries []entry) ([]entryStatus, bool) {
	fates := make([]entryStatus, len(entries))
	if r.outOf > len(entries) {
		return nil, false
	}
	last := -1
	for k := range r.named {
		n := &r.named[k]
		i := r.find(entries, fates, n)
		if i < 0 {
			return nil, false
		}
		if !n.rateLimited {
			fates[i] = entryStatus{entryRejected, n.reason}
		}
		last = max(last, i)
	}
	// Where the ingester got only some, the distributor has refused others and
	// does not say so. Where it limits the rate, it may have forgotten to say
	// which entries were refused for another reason. Nothing else is certain
	// then, and what is stored already is recognized when it comes again.
	if r.rateLimited || r.outOf < len(entries) {
		return fates, true
	}
	for i := range fates[:last+1] {
		if fates[i].kind == entryPending {
			fates[i].kind = entryStored
		}
	}
	r.inferUnnamed(entries, fates, last)
	return fates, true
}

// find returns the entry that is named, -1 if there is none. Of several of one
// time it is the last: what is accepted gets no older.
func (r *rejection) find(entries []entry, fates []entryStatus, n *ingesterRejection) int {
	for i := len(entries) - 1; i >= 0; i-- {
		if fates[i].kind == entryPending && entries[i].time.Equal(n.time) {
			return i
		}
	}
	return -1
}

// inferUnnamed finds out about the entries behind the last that is named.
func (r *rejection) inferUnnamed(entries []entry, fates []entryStatus, last int) {
	left := r.total - len(r.named)
	reason := r.named[len(r.named)-1].reason
	var cutoff time.Time
	for i := range r.named {
		if c := r.named[i].cutoff; c.After(cutoff) {
			cutoff = c
		}
	}
	// What is older than what was refused before it is refused too. If that is
	// as many as Loki says, these are the ones.
	older := 0
	for i := last + 1; i < len(entries); i++ {
		if entries[i].time.Before(cutoff) {
			older++
		}
	}
	for i := last + 1; i < len(entries); i++ {
		switch {
		case left == 0:
			fates[i].kind = entryStored
		case left == older && entries[i].time.Before(cutoff):
			fates[i] = entryStatus{entryRejected, reason}
		case left == older:
			fates[i].kind = entryStored
		default:
			fates[i] = entryStatus{entryUnknown, reason}
		}
	}
}
