package timeline

import (
	"slices"
	"strconv"
	"time"
)

// joinOf returns one line for several.
func (t *Timeline) joinOf(lines []line, which []int) line {
	l := lines[which[0]]
	sum := *l.Row
	sum.Steps = slices.Clone(sum.Steps)
	message := template{whole: sum.Message, used: true}
	objects, nodes, workloads, by := map[int]bool{}, map[int]bool{}, map[int]bool{}, map[int]bool{}
	extra := 0 // objects that rows count and do not name
	l.rows, l.spells, l.Row = nil, 0, &sum
	sum.Objects, sum.Nodes = nil, nil
	for n, i := range which {
		o := &lines[i]
		l.rows = append(l.rows, o.rows...)
		l.spells += o.spells
		workloads[o.Workload], by[o.By] = true, true
		l.preemptors = max(l.preemptors, o.preemptors)
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
		l.few = t.workloadsOf(sum.Objects)
		l.workloads = len(l.few)
		sum.Workload = None
	}
	if len(by) > 1 {
		l.preemptors = max(len(by), l.preemptors)
		sum.By = None
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

// workloadsOf returns the workloads of objects, in the same order.
func (t *Timeline) workloadsOf(objects []int) (workloads []int) {
	seen := map[int]bool{}
	for _, i := range objects {
		if w := t.Objects[i].Workload; !seen[w] {
			seen[w] = true
			workloads = append(workloads, w)
		}
	}
	return workloads
}

// what describes the objects of a line, how often and where.
func (t *Timeline) what(l *line) string {
	s := l.Summary
	if l.spells > 1 || l.workloads > 1 {
		s = t.joinedSummary(l)
	} else if l.Workload == None && l.Routine == "" {
		s += t.names(l.Objects, l.ObjectCount, 3)
	}
	if l.Occurrences > l.EventCount && l.Routine == "" {
		s += ", x" + strconv.Itoa(l.Occurrences)
	}
	if l.spells > 1 && l.workloads <= 1 && !l.usual {
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
		if few := t.names(l.few, l.workloads, 5); few != "" {
			s += few
		} else {
			s += t.inNamespaces(l)
		}
	}
	switch {
	case l.By != None:
		s += ", by " + t.Name(l.By)
	case l.preemptors > 1:
		s += ", by " + plural(l.preemptors, "workload")
	}
	if l.After != "" {
		s += ", after " + l.After
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

// names lists objects, if they are few.
func (t *Timeline) names(objects []int, count, most int) string {
	if count < 2 || len(objects) > most || count > len(objects) {
		return ""
	}
	s := " ("
	for n, i := range objects {
		if n > 0 {
			s += ", "
		}
		o := &t.Objects[i]
		if o.Namespace != "" && o.Namespace != t.Query.Namespace {
			s += o.Namespace + "/"
		}
		s += o.Name
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
