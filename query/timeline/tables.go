package timeline

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// withoutEmpty returns a table without the columns that have no value.
func (t table) withoutEmpty() table {
	for i := len(t.heads) - 1; i > 0; i-- {
		if !slices.ContainsFunc(t.rows, func(row []string) bool { return row[i] != "-" }) {
			t.heads = slices.Delete(t.heads, i, i+1)
			for n := range t.rows {
				t.rows[n] = slices.Delete(t.rows[n], i, i+1)
			}
		}
	}
	return t
}

func (m *pageMaker) limit() int {
	if m.style.AllRows {
		return len(m.Lanes) + len(m.Preemptions)
	}
	return maxTable
}

// usualTable lists what recurs throughout the range.
func (m *pageMaker) usualTable(usual []Line) table {
	t := table{title: "Throughout, before and after alike", heads: []string{"HOW OFTEN", "REASON", "WHAT"}}
	for i := range usual[:min(len(usual), maxUsual)] {
		l := &usual[i]
		p := m.line(l)
		what := l.What
		if p.message != "" && !p.routine {
			what += ": " + p.message
		}
		t.rows = append(t.rows, []string{l.Every, p.reason, what})
	}
	if n := len(usual) - len(t.rows); n > 0 {
		t.notes = append(t.notes, fmt.Sprintf("and %d more; --all-rows shows their rows", n))
	}
	return t
}

// preemptionTable is the table of preemptors and victims.
func (m *pageMaker) preemptionTable() table {
	t := table{title: "Who preempted whom", heads: []string{"FROM", "FOR", "PODS", "OF", "BY", "ON"}}
	pairs := make([]preemptionRow, len(m.Preemptions))
	for i, p := range m.Preemptions {
		pairs[i] = preemptionRow{p, []int{p.Victim}}
	}
	if len(pairs) > m.limit() {
		pairs = byPreemptor(pairs)
	}
	more := len(pairs) - m.limit()
	if more > 0 { // the largest, in the order of time
		slices.SortStableFunc(pairs, func(a, b preemptionRow) int { return cmp.Compare(b.Pods, a.Pods) })
		pairs = pairs[:m.limit()]
		slices.SortStableFunc(pairs, func(a, b preemptionRow) int { return a.First.Compare(b.First) })
	}
	for _, p := range pairs {
		by := "unknown"
		if p.Preemptor != None {
			by = m.Name(p.Preemptor)
			if p.Preemptor == p.Victim && len(p.victims) == 1 {
				by = "itself"
			}
		} else if p.PreemptorUID != "" {
			by = "uid " + p.PreemptorUID
		}
		on := plural(len(p.Nodes), "node")
		if len(p.Nodes) == 1 {
			on = m.Timeline.Objects[p.Nodes[0]].Name
		}
		t.rows = append(t.rows, []string{m.when(p.First), cmp.Or(strings.TrimPrefix(span(p.First, p.Last), "+"), "-"), strconv.Itoa(p.Pods), m.victims(p.victims), by, on})
	}
	if more > 0 {
		t.notes = append(t.notes, fmt.Sprintf("and %d more preemptors", more))
	}
	return t
}

// preemptionRow is a Preemption, or several of one preemptor.
type preemptionRow struct {
	Preemption
	victims []int // workloads
}

// byPreemptor joins the rows of each preemptor.
func byPreemptor(pairs []preemptionRow) (joined []preemptionRow) {
	of := map[int]int{}
	for _, p := range pairs {
		i, known := of[p.Preemptor]
		if !known {
			of[p.Preemptor] = len(joined)
			p.Nodes = slices.Clone(p.Nodes)
			joined = append(joined, p)
			continue
		}
		sum := &joined[i]
		sum.Pods += p.Pods
		if p.Last.After(sum.Last) {
			sum.Last = p.Last
		}
		sum.Nodes = union(sum.Nodes, p.Nodes)
		sum.victims = union(sum.victims, p.victims)
		if sum.PreemptorUID != p.PreemptorUID {
			sum.PreemptorUID = ""
		}
	}
	return joined
}

// victims names a workload or counts several.
func (m *pageMaker) victims(workloads []int) string {
	if len(workloads) == 1 {
		return m.Name(workloads[0])
	}
	namespaces := map[string]bool{}
	for _, w := range workloads {
		namespaces[m.Timeline.Objects[w].Namespace] = true
	}
	return plural(len(workloads), "workload") + " in " + plural(len(namespaces), "namespace")
}

// preempted returns a line with the number of preempted pods, by namespace, empty if none was.
func (m *pageMaker) preempted() string {
	between := map[[2]string]int{}
	total := 0
	for i := range m.Preemptions {
		p := &m.Preemptions[i]
		from := ""
		if p.Preemptor != None {
			from = m.Timeline.Objects[p.Preemptor].Namespace
		}
		between[[2]string{from, m.Timeline.Objects[p.Victim].Namespace}] += p.Pods
		total += p.Pods
	}
	if m.Totals.Preempted == 0 {
		return ""
	}
	pairs := slices.SortedFunc(maps.Keys(between), func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(between[b], between[a]), slices.Compare(a[:], b[:]))
	})
	words := make([]string, 0, len(pairs))
	for _, p := range pairs[:min(len(pairs), 4)] {
		by := cmp.Or(p[0], "unknown pods")
		if p[0] == p[1] {
			by = "its own pods"
		}
		words = append(words, fmt.Sprintf("%d of namespace %s by %s", between[p], p[1], by))
	}
	if n := len(pairs) - len(words); n > 0 {
		words = append(words, fmt.Sprintf("and %d more pairs of namespaces", n))
	}
	if n := m.Totals.Preempted - total; n > 0 {
		words = append(words, fmt.Sprintf("%d of several workloads", n))
	}
	return plural(m.Totals.Preempted, "pod") + " preempted: " + strings.Join(words, ", ")
}

// workloadTable lists the workloads in trouble, worst first, and names the others.
func (m *pageMaker) workloadTable() table {
	t := table{title: "Workloads, most affected first", heads: []string{"WORKLOAD", "PREEMPTED", "EVICTED", "WARNINGS", "FIRST WARNING", "LAST WARNING", "STARTED", "LAST START", "NOT SCHEDULED"}}
	var worst []*Lane
	var well []string
	for i := range m.Lanes {
		l := &m.Lanes[i]
		switch {
		case l.Kind != LaneWorkload:
		case l.Warnings == 0 && l.harmed() == 0 && l.Waiting == 0:
			well = append(well, m.Name(l.Object))
		default:
			worst = append(worst, l)
		}
	}
	slices.SortStableFunc(worst, func(a, b *Lane) int {
		return cmp.Or(cmp.Compare(b.harmed(), a.harmed()), cmp.Compare(b.Warnings, a.Warnings))
	})
	for _, l := range worst[:min(len(worst), m.limit())] {
		first, last, lastStart := "-", "-", "-"
		if l.Started > 0 {
			lastStart = m.when(l.LastStarted)
		}
		if l.Warnings > 0 {
			first, last = m.when(l.FirstWarning), m.when(l.LastWarning)
		}
		t.rows = append(t.rows, []string{m.Name(l.Object), number(l.Preempted), number(l.Evicted), number(l.Warnings), first, last, number(l.Started), lastStart, number(l.Waiting)})
	}
	if n := len(worst) - len(t.rows); n > 0 {
		t.notes = append(t.notes, "and "+plural(n, "workload")+" with fewer Warnings")
	}
	if len(well) > 0 {
		note := plural(len(well), "workload") + " without Warnings: " + strings.Join(well[:min(len(well), 5)], ", ")
		if len(well) > 5 {
			note += ", …"
		}
		t.notes = append(t.notes, note)
	}
	return t
}

// nodeTable is the table of nodes and the Events on them.
func (m *pageMaker) nodeTable() table {
	t := table{title: "Nodes, most affected first", heads: []string{"NODE", "PREEMPTED", "EVICTED", "WARNINGS", "WHAT HAPPENED TO IT"}}
	type node struct {
		*Lane
		story string
	}
	var nodes []node
	quiet := 0
	for i := range m.Lanes {
		l := &m.Lanes[i]
		if l.Kind != LaneNode {
			continue
		}
		if story := m.nodeStory(l); story != "" || l.Warnings > 0 || l.harmed() > 0 {
			nodes = append(nodes, node{l, story})
		} else {
			quiet++
		}
	}
	slices.SortStableFunc(nodes, func(a, b node) int {
		if (a.story != "") != (b.story != "") { // something happened to the node itself
			return cmp.Compare(len(b.story), len(a.story))
		}
		return cmp.Or(cmp.Compare(b.harmed(), a.harmed()), cmp.Compare(b.Warnings, a.Warnings),
			cmp.Compare(m.Timeline.Objects[a.Object].Name, m.Timeline.Objects[b.Object].Name))
	})
	for _, n := range nodes[:min(len(nodes), m.limit())] {
		t.rows = append(t.rows, []string{m.Timeline.Objects[n.Object].Name, number(n.Preempted), number(n.Evicted), number(n.Warnings), cmp.Or(n.story, "-")})
	}
	if more := len(nodes) - len(t.rows); more > 0 {
		t.notes = append(t.notes, "and "+plural(more, "node")+" with fewer")
	}
	if quiet > 0 && len(t.rows) > 0 {
		t.notes = append(t.notes, plural(quiet, "node")+" without Warnings")
	}
	return t
}

// harmed is the number of pods that had to go.
func (l *Lane) harmed() int { return l.Preempted + l.Evicted }

// nodeStory lists what happened to a node itself, in the order of time.
func (m *pageMaker) nodeStory(l *Lane) string {
	const most = 4
	var events []int
	troubled := false
	for _, i := range l.Rows {
		r := &m.Rows[i]
		if r.Routine != "" || !slices.Contains(r.Objects, l.Object) {
			continue
		}
		troubled = troubled || r.trouble()
		for _, n := range r.Events {
			if m.Events[n].Object == l.Object {
				events = append(events, n)
			}
		}
	}
	if !troubled {
		return ""
	}
	slices.Sort(events)
	var words []string
	for _, n := range events {
		if len(words) == most {
			words = append(words, fmt.Sprintf("and %d more", len(events)-most))
			break
		}
		words = append(words, m.Events[n].Reason+" "+m.when(m.Events[n].Time))
	}
	return strings.Join(words, ", ")
}
