package timeline

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// line is a row on a page, or several that were folded further to keep it short.
type line struct {
	*Row
	rows      []int
	spells    int // rows of the same workload and reason
	workloads int // that several rows are about; 0: one
	routines  bool
}

// lineKey is what rows of one line have in common.
type lineKey struct {
	routine, reason, kind, component, namespace, of string
	workload, by                                    int
}

// digest returns the rows in at most limit lines (0: each row is a line) in the order of time, and the
// rows that are in none of them. It first joins the routines, then what recurs, then the
// same reason of several workloads, and at last drops the rows that tell least.
func (t *Timeline) digest(limit int) (lines []line, left []int) {
	for i := range t.Rows {
		lines = append(lines, line{Row: &t.Rows[i], rows: []int{i}, spells: 1})
	}
	same := func(l *line) lineKey { return t.lineKey(l) }
	byNamespace := func(l *line) lineKey {
		k := t.lineKey(l)
		k.workload, k.of = None, ""
		return k
	}
	everywhere := func(l *line) lineKey {
		k := byNamespace(l)
		k.namespace = ""
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
		{routine, everywhere, 2},
		{event, same, 3},
		{event, byNamespace, 3},
		{event, same, 2},
		{event, everywhere, 3},
	} {
		if limit <= 0 || len(lines) <= limit {
			break
		}
		lines = t.joinLines(lines, limit, step.which, step.key, step.least)
	}
	if limit > 0 && len(lines) > limit {
		lines, left = t.mostTelling(lines, limit)
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.First.Compare(b.First) })
	return lines, left
}

func (t *Timeline) lineKey(l *line) lineKey {
	k := lineKey{routine: l.Routine, workload: l.Workload, by: l.By}
	if l.Routine == "" {
		k.reason, k.kind, k.component = l.Reason, l.Type, l.Component
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

// joinOf returns one line for several.
func (t *Timeline) joinOf(lines []line, which []int) line {
	l := lines[which[0]]
	sum := *l.Row
	sum.Steps = slices.Clone(sum.Steps)
	message := template{whole: sum.Message, used: true}
	objects, nodes, workloads := map[int]bool{}, map[int]bool{}, map[int]bool{}
	extra := 0 // objects that rows count and do not name
	l.rows, l.spells, l.Row = nil, 0, &sum
	sum.Objects, sum.Nodes = nil, nil
	for n, i := range which {
		o := &lines[i]
		l.rows = append(l.rows, o.rows...)
		l.spells += o.spells
		workloads[o.Workload] = true
		l.workloads = max(l.workloads, o.workloads)
		extra += o.ObjectCount - len(o.Objects)
		for _, object := range o.Objects {
			if !objects[object] {
				objects[object] = true
				sum.Objects = append(sum.Objects, object)
			}
		}
		for _, node := range o.Nodes {
			if !nodes[node] {
				nodes[node] = true
				sum.Nodes = append(sum.Nodes, node)
			}
		}
		if n == 0 {
			continue
		}
		if o.First.Before(sum.First) {
			sum.First = o.First
		}
		if o.Last.After(sum.Last) {
			sum.Last = o.Last
		}
		sum.EventCount += o.EventCount
		sum.Occurrences += o.Occurrences
		message.add(o.Message)
		for _, s := range o.Steps {
			addStep(&sum.Steps, s)
		}
	}
	sum.ObjectCount = len(sum.Objects) + extra
	sum.Message = message.String()
	if len(workloads) > 1 || workloads[None] {
		l.workloads = t.countWorkloads(sum.Objects)
		sum.Workload = None
	}
	return l
}

func addStep(steps *[]Step, s Step) {
	for i := range *steps {
		if own := &(*steps)[i]; own.Reason == s.Reason {
			own.Events += s.Events
			own.Occurrences += s.Occurrences
			return
		}
	}
	*steps = append(*steps, s)
}

func (t *Timeline) countWorkloads(objects []int) int {
	of := map[int]bool{}
	for _, i := range objects {
		of[t.Objects[i].Workload] = true
	}
	return len(of)
}

// mostTelling returns the lines that tell most, and the rows of the others.
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

// weight is how much a line tells.
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

// what says to whom a line happened, how often and where.
func (t *Timeline) what(l *line) string {
	s := l.Summary
	if l.spells > 1 || l.workloads > 1 {
		s = t.joinedSummary(l)
	} else if l.Workload == None && l.Routine == "" {
		s += t.names(l.Objects, l.ObjectCount)
	}
	if l.Occurrences > l.EventCount && l.Routine == "" {
		s += ", x" + strconv.Itoa(l.Occurrences)
	}
	if l.spells > 1 {
		s += ", " + strconv.Itoa(l.spells) + " times apart"
	}
	return s + t.where(l)
}

func (t *Timeline) joinedSummary(l *line) string {
	pods, kind := 0, ""
	for n, i := range l.Objects {
		o := &t.Objects[i]
		if o.Kind == "Pod" {
			pods++
		}
		if n == 0 {
			kind = o.Kind
		} else if kind != o.Kind {
			kind = ""
		}
	}
	var s string
	switch {
	case pods > 0 && l.Routine != "":
		s = plural(pods, "pod")
	default:
		s = plural(l.ObjectCount, kindWord(kind))
	}
	if l.Workload != None {
		if l.ObjectCount == 1 {
			s = t.Name(l.Objects[0])
		} else {
			s += " of " + t.Name(l.Workload)
		}
	} else if l.workloads > 1 && (pods > 0 || kind == "") {
		s += " of " + plural(l.workloads, "workload")
	}
	if l.Workload == None {
		s += t.inNamespaces(l)
	}
	if l.By != None {
		s += ", by " + t.Name(l.By)
	}
	return s
}

func (t *Timeline) inNamespaces(l *line) string {
	in := map[string]bool{}
	name := ""
	for _, i := range l.Objects {
		if name = t.Objects[i].Namespace; name != "" {
			in[name] = true
		}
	}
	switch {
	case len(in) == 0 || t.Query.Namespace != "" && len(in) == 1 && in[t.Query.Namespace]:
		return ""
	case len(in) == 1:
		return " in " + name
	}
	return " in " + plural(len(in), "namespace")
}

// names lists a few objects.
func (t *Timeline) names(objects []int, count int) string {
	const most = 3
	if count < 2 || len(objects) > most || count > len(objects) {
		return ""
	}
	s := " ("
	for n, i := range objects {
		if n > 0 {
			s += ", "
		}
		s += t.Objects[i].Name
	}
	return s + ")"
}

// where names the node of a line, or counts its nodes.
func (t *Timeline) where(l *line) string {
	onNodes := len(l.Objects) > 0 && t.Objects[l.Objects[0]].Kind == "Node"
	switch {
	case onNodes || len(l.Nodes) == 0 || l.Gap:
		return ""
	case len(l.Nodes) == 1:
		return ", on " + t.Objects[l.Nodes[0]].Name
	}
	return ", on " + plural(len(l.Nodes), "node")
}

// Name returns kind and name of an object; its namespace if it is not that of the query.
func (t *Timeline) Name(i int) string {
	o := &t.Objects[i]
	if o.Namespace == "" || o.Namespace == t.Query.Namespace {
		return kindWord(o.Kind) + " " + o.Name
	}
	return kindWord(o.Kind) + " " + o.Namespace + "/" + o.Name
}

// span is the length of a line, empty below a second.
func span(first, last time.Time) string {
	d := last.Truncate(time.Second).Sub(first.Truncate(time.Second))
	switch n := int(d / time.Second); {
	case n <= 0:
		return ""
	case n < 60:
		return "+" + strconv.Itoa(n) + "s"
	case n < 3600:
		return "+" + strconv.Itoa(n/60) + "m" + twoDigits(n%60) + "s"
	case n < 48*3600:
		return "+" + strconv.Itoa(n/3600) + "h" + twoDigits(n/60%60) + "m"
	default:
		return "+" + strconv.Itoa(n/86400) + "d" + twoDigits(n/3600%24) + "h"
	}
}

func twoDigits(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}
