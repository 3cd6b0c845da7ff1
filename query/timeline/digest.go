package timeline

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// line is a row on a page, or several that were folded further to keep it short.
type line struct {
	*Row
	rows   []int
	spells int  // rows of the same workload and reason
	usual  bool // recurs throughout the range

	// Of a line about several workloads: how many, a few of them, and how many preemptors.
	workloads  int
	few        []int
	preemptors int
}

// lineKey is what rows of one line have in common.
type lineKey struct {
	routine, reason, kind, component, after, namespace, of string
	workload, by                                           int
}

// digest returns the rows in lines, in the order of time. With a limit, what recurs throughout the
// range is apart (usual), what happens to several workloads at once is one line, and there are at most
// limit others (0: each row is a line): then it joins first the routines, then what recurs, then the
// same reason of several workloads, and at last drops the rows of the least weight (left).
func (t *Timeline) digest(limit int) (lines, usual []line, left []int) {
	for i := range t.Rows {
		lines = append(lines, line{Row: &t.Rows[i], rows: []int{i}, spells: 1})
	}
	if limit <= 0 {
		return lines, nil, nil
	}
	usual, lines = t.recurring(lines)
	lines = t.joinAtOnce(lines)
	same := func(l *line) lineKey { return t.lineKey(l) }
	byNamespace := func(l *line) lineKey {
		k := t.lineKey(l)
		k.workload, k.of = None, ""
		return k
	}
	anyPreemptor := func(l *line) lineKey {
		k := t.everywhere(l)
		k.by = None
		return k
	}
	routine := func(l *line) bool { return l.Routine != "" }
	event := func(l *line) bool { return l.Routine == "" && !l.Gap }
	for _, step := range []struct {
		which func(*line) bool
		key   func(*line) lineKey
		least int // lines to join
	}{
		{routine, same, 3},
		{routine, byNamespace, 2},
		{routine, t.everywhere, 2},
		{event, same, 3},
		{event, byNamespace, 3},
		{event, same, 2},
		{event, t.everywhere, 3},
		{event, anyPreemptor, 3},
	} {
		if len(lines) <= limit {
			break
		}
		lines = t.joinLines(lines, limit, step.which, step.key, step.least)
	}
	if len(lines) > limit {
		lines, left = t.mostTelling(lines, limit)
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.First.Compare(b.First) })
	return lines, usual, left
}

// everywhere is the key of a line without its workload.
func (t *Timeline) everywhere(l *line) lineKey {
	k := t.lineKey(l)
	k.workload, k.of, k.namespace = None, "", ""
	return k
}

func (t *Timeline) lineKey(l *line) lineKey {
	k := lineKey{routine: l.Routine, workload: l.Workload, by: l.By}
	if l.Routine == "" {
		k.reason, k.kind, k.component, k.after = l.Reason, l.Type, l.Component, l.After
	}
	if len(l.Objects) > 0 {
		o := &t.Objects[l.Objects[0]]
		k.namespace = o.Namespace
		if l.Workload == None {
			k.of = o.Kind
		}
	}
	return k
}

// joinLines joins lines of the same key, if there are at least so many: the most numerous first, until
// at most limit lines remain.
func (t *Timeline) joinLines(lines []line, limit int, which func(*line) bool, key func(*line) lineKey, least int) []line {
	of := map[lineKey][]int{}
	for i := range lines {
		if which(&lines[i]) {
			k := key(&lines[i])
			of[k] = append(of[k], i)
		}
	}
	groups := slices.SortedFunc(maps.Values(of), func(a, b []int) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a[0], b[0]))
	})
	gone := make([]bool, len(lines))
	n := len(lines)
	for _, same := range groups {
		if len(same) < least || n <= limit {
			break
		}
		lines[same[0]] = t.joinOf(lines, same)
		for _, i := range same[1:] {
			gone[i] = true
		}
		n -= len(same) - 1
	}
	joined := make([]line, 0, n)
	for i := range lines {
		if !gone[i] {
			joined = append(joined, lines[i])
		}
	}
	return joined
}

// mostTelling returns the lines of the most weight, and the rows of the others.
func (t *Timeline) mostTelling(lines []line, limit int) (best []line, left []int) {
	marked := map[int]bool{}
	for _, m := range t.Marks[min(1, len(t.Marks)):] { // the first and the last Event are named in any case
		marked[m.Row] = true
	}
	weights := make([]float64, len(lines))
	for i := range lines {
		weights[i] = t.weight(&lines[i], marked)
	}
	order := make([]int, len(lines))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(weights[b], weights[a]) })
	for _, i := range order[:limit] {
		best = append(best, lines[i])
	}
	for _, i := range order[limit:] {
		left = append(left, lines[i].rows...)
	}
	return best, left
}

// weight is the importance of a line to a reader.
func (t *Timeline) weight(l *line, marked map[int]bool) float64 {
	w := 8.0
	switch {
	case l.Gap:
		return math.Inf(1)
	case l.Routine != "":
		w = 4
	case l.trouble():
		w = 30
		if alarming[l.Reason] {
			w = 45
		}
	}
	w *= 1 + 0.3*math.Log2(float64(max(l.ObjectCount, 1))) + 0.1*math.Log2(float64(max(l.Occurrences, 1)))
	if l.Workload != None && t.Objects[l.Workload].Relation == Selected.String() {
		w *= 2
	}
	if slices.ContainsFunc(l.rows, func(i int) bool { return marked[i] }) {
		w *= 4
	}
	return w
}
