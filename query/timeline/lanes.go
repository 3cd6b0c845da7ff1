package timeline

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/query/objects"
)

// Ranks of lanes, in reading order.
const (
	rankGap = iota
	rankSelected
	rankPreemptor
	rankNode
	rankOther
)

// laneBuilder is a Lane before it is in order.
type laneBuilder struct {
	Lane
	rank int
	rows map[int]bool
}

// addLanes adds a lane for each workload, namespace and node with rows, and one for gaps.
func (d *finisher) addLanes(rows []*row) {
	d.addPreemptors(rows)
	lanes := map[objects.Object]*laneBuilder{}
	lane := func(kind string, o objects.Object) *laneBuilder {
		l := lanes[o]
		if l == nil {
			l = &laneBuilder{Lane: Lane{Kind: kind, Object: None}, rank: rankOther, rows: map[int]bool{}}
			if kind != LaneGap {
				l.Object = d.index(o)
			}
			lanes[o] = l
		}
		return l
	}
	for i := range d.t.Rows {
		r, key := &d.t.Rows[i], rows[i].key
		switch {
		case r.Gap:
			lane(LaneGap, objects.Object{}).addRow(i, r)
		case key.group.Kind == "Node":
			// Below, by node.
		case r.Workload != None:
			o := d.t.Objects[r.Workload]
			lane(LaneWorkload, objects.New(o.Kind, o.Namespace, o.Name)).addRow(i, r)
		default:
			lane(LaneNamespace, objects.Object{Kind: "Namespace", Name: key.group.Namespace}).addRow(i, r)
		}
		if key.routine == RoutinePods {
			continue
		}
		for _, e := range rows[i].kept {
			if e.node != "" {
				lane(LaneNode, objects.Object{Kind: "Node", Name: e.node}).rows[i] = true
			}
		}
	}
	d.countPods(lanes)
	for name, s := range d.nodes {
		if l := lanes[objects.Object{Kind: "Node", Name: name}]; l != nil {
			l.Events, l.Occurrences, l.Warnings, l.Preempted = s.events, s.occurrences, s.warnings, s.preempted
			l.Evicted = s.evicted
			l.FirstWarning, l.LastWarning = s.firstWarning, s.lastWarning
		}
	}
	d.orderLanes(lanes)
}

func (l *laneBuilder) addRow(i int, r *Row) {
	l.rows[i] = true
	l.Events += r.EventCount
	l.Occurrences += r.Occurrences
	if r.Reason == reasonPreempted && r.Routine == "" {
		l.Preempted += r.ObjectCount
	}
	if r.Type != corev1.EventTypeWarning || r.Gap {
		return
	}
	l.Warnings += r.EventCount
	if l.FirstWarning.IsZero() || r.First.Before(l.FirstWarning) {
		l.FirstWarning = r.First
	}
	if r.Last.After(l.LastWarning) {
		l.LastWarning = r.Last
	}
}

func (d *finisher) countPods(lanes map[objects.Object]*laneBuilder) {
	groups := make([]objects.Object, len(d.lanes))
	for o, i := range d.lanes {
		groups[i] = o
	}
	for _, s := range d.pods {
		l := lanes[groups[s.lane]]
		if l == nil {
			continue
		}
		if s.started {
			l.Started++
			l.LastStarted = d.starts[s.lane]
		}
		if s.waiting {
			l.Waiting++
		}
		if s.evicted {
			l.Evicted++
		}
	}
}

func (d *finisher) orderLanes(lanes map[objects.Object]*laneBuilder) {
	preemptors := map[int]bool{}
	for _, p := range d.t.Preemptions {
		preemptors[p.Preemptor] = true
	}
	ordered := slices.Collect(maps.Values(lanes))
	for _, l := range ordered {
		l.Rows = slices.Sorted(maps.Keys(l.rows))
		switch {
		case l.Kind == LaneGap:
			l.rank = rankGap
		case l.Kind == LaneNode && d.query.Node != d.t.Objects[l.Object].Name:
			l.rank = rankNode
		case d.selected(l.Object):
			l.rank = rankSelected
		case preemptors[l.Object]:
			l.rank = rankPreemptor
		}
		switch l.Kind {
		case LaneWorkload:
			d.t.Totals.Workloads++
		case LaneNode:
			d.t.Totals.Nodes++
		}
	}
	d.t.Totals.Objects = len(d.objects)
	// Among many lanes with Warnings, those of a preemption or eviction come first.
	apart := func(l *laneBuilder) int {
		if l.Preempted+l.Evicted > 0 || preemptors[l.Object] {
			return 0
		}
		return 1
	}
	slices.SortFunc(ordered, func(a, b *laneBuilder) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(apart(a), apart(b)), compareTrouble(a.trouble(d.t), b.trouble(d.t)),
			cmp.Compare(-a.Warnings, -b.Warnings), cmp.Compare(firstRow(a), firstRow(b)), cmp.Compare(a.Object, b.Object))
	})
	for _, l := range ordered {
		d.t.Lanes = append(d.t.Lanes, l.Lane)
	}
}

func (d *finisher) selected(object int) bool {
	return d.query.For == "" && d.query.Node == "" || d.t.Objects[object].Relation == Selected.String()
}

// trouble is when something first happened to a lane that is no routine, zero if nothing did.
func (l *laneBuilder) trouble(t *Timeline) time.Time {
	for _, i := range l.Rows {
		if r := &t.Rows[i]; r.trouble() {
			return r.First
		}
	}
	return time.Time{}
}

// compareTrouble orders zero last.
func compareTrouble(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}

func firstRow(l *laneBuilder) int {
	if len(l.Rows) == 0 {
		return 0
	}
	return l.Rows[0]
}
