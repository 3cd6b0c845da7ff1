//go:build e2e

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// comparison compares the written states with the content of each sink.
type comparison struct {
	ledger  *ledger
	outputs []*output
}

// update reads the new content of every sink.
func (a *comparison) update(ctx context.Context) {
	for _, o := range a.outputs {
		o.update(ctx, a.ledger)
		if len(o.gaps) > 0 && len(o.open) > 0 {
			x := a.index()
			o.open = slices.DeleteFunc(o.open, func(s *state) bool { return o.inGap(s, x) })
		}
	}
}

// missing returns, for each sink, the missing ones of the first n states of the ledger.
func (a *comparison) missing(n int) map[*output][]*state {
	all := map[*output][]*state{}
	for _, o := range a.outputs {
		for _, s := range o.open {
			if s.number < n {
				all[o] = append(all[o], s)
			}
		}
	}
	return all
}

// index lists the known versions of each Event.
type index map[string][]uint64

func (a *comparison) index() index {
	x := index{}
	for _, s := range a.ledger.all() {
		x[s.uid] = append(x[s.uid], s.version)
	}
	for _, o := range a.outputs { // writes without a response included
		for k := range o.seen {
			x[k.uid] = append(x[k.uid], k.version)
		}
	}
	for uid, versions := range x {
		slices.Sort(versions)
		x[uid] = slices.Compact(versions)
	}
	return x
}

// after returns the next version of an Event, 0 if there is none.
func (x index) after(k key) uint64 {
	versions := x[k.uid]
	i, _ := slices.BinarySearch(versions, k.version+1)
	if i == len(versions) {
		return 0
	}
	return versions[i]
}

// inGap reports whether a sink may lack a state: it was written and overwritten
// within declared gaps. A state that was not overwritten before their end could
// still be listed.
func (o *output) inGap(s *state, x index) bool {
	next := x.after(s.key)
	return next != 0 && slices.ContainsFunc(o.mergedGaps(), func(g gap) bool { return g.from < s.version && next <= g.to })
}

// mergedGaps returns the gaps, adjacent ones as one: a state of the first may have
// been overwritten in the second.
func (o *output) mergedGaps() (all []gap) {
	gaps := slices.SortedFunc(maps.Values(o.gaps), func(a, b gap) int { return cmp.Compare(a.from, b.from) })
	for _, g := range gaps {
		if last := len(all) - 1; last >= 0 && g.from <= all[last].to {
			all[last].to = max(all[last].to, g.to)
		} else {
			all = append(all, g)
		}
	}
	return all
}

// compaction is a compaction after which no replica could resume from its position.
type compaction struct {
	revision uint64
	before   map[key]bool // gaps that had been declared before
}

// declared returns the gaps of all outputs so far.
func (a *comparison) declared() map[key]bool {
	all := map[key]bool{}
	for _, o := range a.outputs {
		for k := range o.gaps {
			all[k] = true
		}
	}
	return all
}

// checkGaps returns the errors in the gaps: each gap needs a compaction as its
// cause, and each compaction needs a gap in each sink that spans it. A sink that
// was behind the others gets a gap of its own up to their position, which may end
// before the compaction; a replica that is killed then declares no second one.
func (a *comparison) checkGaps(necessary []compaction) (wrong []string) {
	for _, o := range a.outputs {
		all := o.mergedGaps()
		for k, g := range o.gaps {
			spans := func(c compaction) bool {
				return g.from < c.revision && !c.before[k] ||
					slices.ContainsFunc(all, func(s gap) bool { return s.from <= g.from && g.to <= s.to && s.spans(c) })
			}
			if !slices.ContainsFunc(necessary, spans) {
				wrong = append(wrong, fmt.Sprintf("%s: a gap was declared without a cause, from %d to %d, in %s: %s", o.name, g.from, g.to, g.place, g.text))
			}
		}
		for _, c := range necessary {
			if !slices.ContainsFunc(all, func(g gap) bool { return g.spans(c) }) {
				wrong = append(wrong, fmt.Sprintf("%s: no gap was declared, but states before version %d could not be replayed", o.name, c.revision))
			}
		}
	}
	return wrong
}

func (g gap) spans(c compaction) bool { return g.from < c.revision && c.revision <= g.to }

// checkMarks returns the states in sinks that were not written, or written differently.
func (a *comparison) checkMarks() (wrong []string) {
	marks := map[key]string{}
	for _, s := range a.ledger.all() {
		marks[s.key] = s.mark
	}
	for _, o := range a.outputs {
		for k, d := range o.seen {
			mark, answered := marks[k]
			switch {
			case answered && d.mark != mark:
				wrong = append(wrong, fmt.Sprintf("%s: %s was written as %s, and is %s in %s", o.name, k, mark, d.mark, d.place))
			case !answered && d.mark != "" && a.ledger.failure(d.mark) == nil: // without a mark it is an Event of the cluster itself
				wrong = append(wrong, fmt.Sprintf("%s: %s was not written, and is %s in %s", o.name, k, d.mark, d.place))
			}
		}
	}
	return wrong
}

// describe describes missing states: their writes, the fault in effect, the sinks
// that have them, and the neighbours in the sink that does not.
func (a *comparison) describe(missing map[*output][]*state, h *history) string {
	const most = 12 // of each sink
	x := a.index()
	var b strings.Builder
	for _, o := range a.outputs {
		lost := missing[o]
		if len(lost) == 0 {
			continue
		}
		slices.SortFunc(lost, func(a, b *state) int { return cmp.Compare(a.version, b.version) })
		fmt.Fprintf(&b, "%s lacks %d of %d states, of versions %d to %d", o.name, len(lost), len(a.ledger.all()), lost[0].version, lost[len(lost)-1].version)
		if o.readError != nil {
			fmt.Fprintf(&b, " (it could not be read: %v)", o.readError)
		}
		b.WriteString(":\n")
		for when, n := range countBy(lost, func(s *state) string { return h.during(s.written) }) {
			fmt.Fprintf(&b, "  %d written %s\n", n, when)
		}
		for _, s := range lost[:min(most, len(lost))] {
			fmt.Fprintf(&b, "  %s\n    sent %s, answered %s, %s\n", s, clock(s.sent), clock(s.written), h.during(s.written))
			if next := x.after(s.key); next != 0 {
				fmt.Fprintf(&b, "    overwritten by version %d; %s\n", next, o.has(key{s.uid, next}))
			} else {
				b.WriteString("    never overwritten\n")
			}
			for _, other := range a.outputs {
				if other != o {
					fmt.Fprintf(&b, "    %s: %s\n", other.name, other.has(s.key))
				}
			}
			before, after := o.around(s.version)
			fmt.Fprintf(&b, "    its neighbours in %s: %s, and %s\n", o.name, before, after)
		}
		if len(lost) > most {
			fmt.Fprintf(&b, "  … and %d more\n", len(lost)-most)
		}
		for _, g := range o.gaps {
			fmt.Fprintf(&b, "  a gap from %d to %d was declared to it (%s)\n", g.from, g.to, g.place)
		}
		if len(o.gaps) == 0 {
			b.WriteString("  no gap was declared to it\n")
		}
	}
	return b.String()
}

// has describes whether and where a sink has a state.
func (o *output) has(k key) string {
	d := o.seen[k]
	switch {
	case d == nil:
		return "does not have it"
	case d.times > 1:
		return fmt.Sprintf("has it %d times, first in %s", d.times, d.place)
	default:
		return "has it, in " + d.place
	}
}

// around describes the states of a sink right before and after a version.
func (o *output) around(version uint64) (before, after string) {
	var last, next key
	for k := range o.seen {
		if k.version < version && k.version > last.version {
			last = k
		}
		if k.version > version && (next.version == 0 || k.version < next.version) {
			next = k
		}
	}
	describe := func(k key) string {
		if k.version == 0 {
			return "nothing"
		}
		d := o.seen[k]
		return fmt.Sprintf("version %d, %s, in %s", k.version, d.mark, d.place)
	}
	return describe(last) + " before", describe(next) + " after"
}

func countBy(all []*state, property func(*state) string) map[string]int {
	n := map[string]int{}
	for _, s := range all {
		n[property(s)]++
	}
	return n
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
