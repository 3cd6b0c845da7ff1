package timeline

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/query/objects"
)

// pauseShare is the part of the Timeline's length that a pause may have within a row.
const pauseShare = 100

// finisher turns the rows of a Folder into a Timeline.
type finisher struct {
	*Folder
	t       *Timeline
	indexes map[objects.Object]int
}

// Timeline returns the Timeline of the records that were added. The Folder cannot be used afterwards.
func (f *Folder) Timeline() *Timeline {
	t := &Timeline{Version: Version, Query: f.query, Totals: f.totals}
	d := finisher{Folder: f, t: t, indexes: map[objects.Object]int{}}
	rows := d.sortRows()
	d.addEvents(rows)
	for _, r := range rows {
		d.addRow(r)
	}
	d.addMarks()
	d.addPreemptions(rows)
	d.addLanes(rows)
	d.addOmissions()
	t.Story, _ = t.story(PageRows)
	return t
}

// sortRows joins rows with a pause that fits the length of the Timeline, and returns them in order.
func (d *finisher) sortRows() []*row {
	var first, last time.Time
	for _, rows := range d.rows {
		for _, r := range rows {
			if first.IsZero() || r.first.Before(first) {
				first = r.first
			}
			if r.last.After(last) {
				last = r.last
			}
		}
	}
	d.t.First, d.t.Last = first, last
	begin := first
	if d.query.From.After(begin) {
		begin = d.query.From
	}
	d.join(max(d.pause, last.Sub(begin)/pauseShare), d.disturbed())
	all := slices.Concat(slices.Collect(maps.Values(d.rows))...)
	slices.SortFunc(all, func(a, b *row) int {
		return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.sequence(), b.sequence()))
	})
	return all
}

// disturbed returns whether something happened to a workload or a node between two rows of its routine.
func (d *finisher) disturbed() func(a, b *row) bool {
	troubles := map[objects.Object][]time.Time{}
	for _, rows := range d.rows {
		for _, r := range rows {
			if r.key.routine == "" && (r.kind == corev1.EventTypeWarning || alarming[r.key.reason]) {
				troubles[r.key.group] = append(troubles[r.key.group], r.first)
			}
		}
	}
	return func(a, b *row) bool {
		return a.key.routine != "" && slices.ContainsFunc(troubles[a.key.group], func(at time.Time) bool {
			return at.After(a.last) && at.Before(b.first.Add(quietPause)) // times of whole seconds precede others
		})
	}
}

// sequence is the place of the row's first kept Event.
func (r *row) sequence() int { return r.kept[0].sequence }

// addEvents adds the kept Events, and returns with the rows in their Row field.
func (d *finisher) addEvents(rows []*row) {
	var all []*kept
	for i, r := range rows {
		if last := r.kept[len(r.kept)-1]; r.newest != last {
			r.kept = append(r.kept, r.newest)
		}
		for _, e := range r.kept {
			e.Row = i
		}
		all = append(all, r.kept...)
	}
	slices.SortFunc(all, func(a, b *kept) int { return cmp.Compare(a.sequence, b.sequence) })
	d.t.Events = make([]Event, len(all))
	for i, e := range all {
		e.Event.Object, e.Event.Node = d.index(e.object), None
		if e.node != "" {
			e.Event.Node = d.index(objects.Object{Kind: "Node", Name: e.node})
		}
		d.t.Events[i] = e.Event
		e.sequence = i // its index from here on
	}
}

// index returns the index of an object, which it adds with its owners if it is new.
func (d *finisher) index(o objects.Object) int {
	if i, ok := d.indexes[o]; ok {
		return i
	}
	i := len(d.t.Objects)
	d.indexes[o] = i
	d.t.Objects = append(d.t.Objects, Object{
		Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Owner: None, Workload: i, Relation: d.relation(o),
	})
	if owner, evidence, ok := d.graph.Owner(o); ok {
		n := d.index(owner)
		d.t.Objects[i].Owner, d.t.Objects[i].Evidence = n, evidence.String()
	}
	if w, _ := d.graph.Workload(o); w != o {
		n := d.index(w)
		d.t.Objects[i].Workload = n
	}
	if o.Kind == "Pod" {
		for _, name := range d.graph.Nodes(o) {
			n := d.index(objects.Object{Kind: "Node", Name: name})
			d.t.Objects[i].Nodes = append(d.t.Objects[i].Nodes, n)
		}
	}
	return i
}

func (d *finisher) addRow(r *row) {
	row := Row{
		First: r.first, Last: r.last, Type: r.kind, Level: r.level, Reason: r.key.reason, Routine: r.key.routine,
		Message: r.message.String(), Component: r.key.component, Workload: None, By: None,
		ObjectCount: len(r.objects), EventCount: r.events, Occurrences: r.occurrences, Steps: r.steps,
	}
	sortSteps(r.steps)
	seen := map[int]bool{}
	for _, e := range r.kept {
		row.Events = append(row.Events, e.sequence)
		if i := e.Event.Object; !seen[i] {
			seen[i] = true
			row.Objects = append(row.Objects, i)
		}
	}
	if r.key.routine == routineGap {
		row.Routine, row.Gap, row.Message = "", true, r.kept[0].Message
	}
	if r.key.routine == RoutinePods || r.key.routine == RoutineNode {
		row.Reason = r.steps[len(r.steps)-1].Reason
	}
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		row.Nodes = append(row.Nodes, d.index(objects.Object{Kind: "Node", Name: name}))
	}
	switch {
	case r.key.group.Name != "" && !row.Gap:
		row.Workload = d.index(r.key.group)
	case len(r.objects) == 1:
		row.Workload = d.t.Objects[row.Objects[0]].Workload
	}
	row.After = mostFrequent(r.after)
	if r.key.by.Name != "" {
		row.By = d.index(r.key.by)
	}
	row.Summary = d.summary(r, &row)
	d.t.Rows = append(d.t.Rows, row)
}

// summary names the objects of a row and the cause.
func (d *finisher) summary(r *row, row *Row) string {
	var s string
	switch group := r.key.group; {
	case row.Gap:
		return "Events may be missing"
	case group == several || group == objects.Object{}:
		s = plural(row.ObjectCount, "object")
		if r.pods == row.ObjectCount {
			s = plural(r.pods, "pod")
		}
	case row.ObjectCount == 1 && r.kept[0].object == group:
		s = d.name(group)
	case row.ObjectCount == 1:
		s = d.name(r.kept[0].object)
	case group.Name == "":
		s = plural(row.ObjectCount, kindWord(group.Kind))
		if group.Namespace != "" && group.Namespace != d.query.Namespace {
			s += " in " + group.Namespace
		}
	case r.pods > 0:
		s = plural(r.pods, "pod") + " of " + d.name(group)
	default:
		s = d.name(group)
	}
	switch {
	case row.By != None && row.By == row.Workload:
		s += ", by its own pods"
	case row.By != None:
		s += ", by " + d.name(r.key.by)
	case r.key.by == several:
		s += ", by " + several.Kind
	case r.key.reason == reasonPreempted:
		s += ", by a pod without other Events"
	}
	if row.After != "" {
		s += ", after " + row.After
	}
	return s
}

// mostFrequent returns the key with the largest value.
func mostFrequent(counts map[string]int) (best string) {
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		if best == "" || counts[k] > counts[best] {
			best = k
		}
	}
	return best
}

// name returns kind and name of an object; its namespace if it is not that of the query.
func (d *finisher) name(o objects.Object) string {
	if o.Namespace == "" || o.Namespace == d.query.Namespace {
		return kindWord(o.Kind) + " " + o.Name
	}
	return kindWord(o.Kind) + " " + o.Namespace + "/" + o.Name
}

// kindWord is a kind as a word of a sentence.
func kindWord(kind string) string {
	switch kind {
	case "Pod", "Node", "Namespace":
		return string(kind[0]+'a'-'A') + kind[1:]
	case "":
		return "object"
	}
	return kind
}

func plural(n int, word string) string {
	s := strconv.Itoa(n) + " " + word
	switch {
	case n == 1:
	case word[len(word)-1] == 's':
		s += "es"
	case word[len(word)-1] == 'y':
		s = s[:len(s)-1] + "ies"
	default:
		s += "s"
	}
	return s
}

// addMarks names the first and the last Event, and the first and the last Warning, of the range.
func (d *finisher) addMarks() {
	if len(d.t.Events) == 0 {
		return
	}
	mark := func(text string, event int) {
		if event != None {
			d.t.Marks = append(d.t.Marks, Mark{Text: text, Event: event, Row: d.t.Events[event].Row})
		}
	}
	preempted, lastPreempted, evicted, warning, lastWarning := None, None, None, None, None
	for i := range d.t.Events {
		e := &d.t.Events[i]
		if e.Reason == reasonPreempted {
			lastPreempted = i
			if preempted == None {
				preempted = i
			}
		}
		if evicted == None && evicts(e) {
			evicted = i
		}
		if e.Type != corev1.EventTypeWarning || e.Gap {
			continue
		}
		lastWarning = i
		if warning == None || e.begin(d.query.From).Before(d.t.Events[warning].begin(d.query.From)) {
			warning = i
		}
	}
	mark("first Event", 0)
	mark("first Warning", warning)
	mark("first preemption", preempted)
	mark("first eviction", evicted)
	if lastPreempted != preempted {
		mark("last preemption", lastPreempted)
	}
	if lastWarning != warning || lastWarning != None && !d.t.Events[warning].First.IsZero() {
		mark("last Warning", lastWarning)
	}
	mark("last Event", len(d.t.Events)-1)
}

// begin is the first occurrence in the range, else the last one.
func (e *Event) begin(from time.Time) time.Time {
	if e.First.IsZero() || e.First.Before(from) {
		return e.Time
	}
	return e.First
}

// addPreemptions counts who preempted whom, from the rows.
func (d *finisher) addPreemptions(rows []*row) {
	of := map[[2]int]int{}
	for i, r := range d.t.Rows {
		if r.Reason != reasonPreempted || r.Routine != "" || rows[i].key.group == several {
			continue
		}
		victim := r.Workload
		if victim == None {
			victim = r.Objects[0]
		}
		key := [2]int{victim, r.By}
		n, known := of[key]
		if !known {
			n = len(d.t.Preemptions)
			of[key] = n
			d.t.Preemptions = append(d.t.Preemptions, Preemption{Victim: victim, Preemptor: r.By, First: r.First})
		}
		p := &d.t.Preemptions[n]
		p.Pods += r.ObjectCount
		p.Last = r.Last
		p.Nodes = union(p.Nodes, r.Nodes)
		p.Victims = union(p.Victims, r.Objects)
		p.Events = append(p.Events, r.Events...)
	}
}

// addPreemptors adds the pods that the kept Events name.
func (d *finisher) addPreemptors(rows []*row) {
	for i := range d.t.Preemptions {
		p := &d.t.Preemptions[i]
		uids := map[string]bool{}
		for _, n := range p.Events {
			for _, e := range rows[d.t.Events[n].Row].kept {
				if e.sequence != n {
					continue
				}
				if e.by.Name != "" {
					p.Preemptors = union(p.Preemptors, []int{d.index(e.by)})
				} else if e.byUID != "" {
					uids[e.byUID] = true
				}
			}
		}
		if len(uids) == 1 && p.Preemptor == None {
			for uid := range uids {
				p.PreemptorUID = uid
			}
		}
	}
}

// union adds the indexes of b that are not in a.
func union(a, b []int) []int {
	for _, i := range b {
		if !slices.Contains(a, i) {
			a = append(a, i)
		}
	}
	return a
}

func (d *finisher) addOmissions() {
	omit := func(count int, text string) {
		if count > 0 {
			d.t.Omissions = append(d.t.Omissions, Omission{Text: text, Count: count})
		}
	}
	omit(d.totals.Events-len(d.t.Events),
		"Events are counted in their rows, but not listed: of rows with many Events, only every n-th is kept")
	omit(d.cut, fmt.Sprintf("messages are cut at %d bytes", maxMessage))
	omit(d.overflow, fmt.Sprintf("Events are in rows of several workloads, because there were more than %d rows", maxRows))
	if d.nodesFull {
		omit(maxCounted, "nodes are counted; Events of others are only in their rows")
	}
}
