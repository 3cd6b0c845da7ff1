package timeline

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/query/objects"
)

// rowKey is what the Events of a row have in common.
type rowKey struct {
	routine                 string // of a routine, instead of the next three
	reason, kind, component string // kind: the Event's type
	group                   objects.Object
	by                      objects.Object // workload of the preemptor
}

// several is the By of a row for several preemptors, and the workload of one for several workloads.
var several = objects.Object{Kind: "several workloads"}

// coarser returns keys for fewer rows, to be used when there are too many.
func (k rowKey) coarser() []rowKey {
	if k.routine != "" {
		return []rowKey{{routine: k.routine, group: several}, {reason: otherReasons}}
	}
	byReason := rowKey{reason: k.reason, kind: k.kind, component: k.component, group: several}
	if k.by.Name != "" {
		byReason.by = several
	}
	return []rowKey{byReason, {reason: otherReasons}}
}

// row is a Row that is being filled.
type row struct {
	key         rowKey
	first, last time.Time
	events      int
	occurrences int
	pods        int             // in objects
	objects     map[uint64]bool // hash of an object → it is a pod
	nodes       map[string]struct{}
	steps       []Step
	message     template
	kind        string
	level       string
	after       map[string]int // causes of its Events

	kept   []*kept // every stride-th Event
	stride int
	newest *kept // the last Event
}

// maxSteps is the number of steps that a routine counts one by one.
const maxSteps = 32

func (r *row) add(f *Folder, e *kept, first, last time.Time) {
	if first.Before(r.first) {
		r.first = first
	}
	if last.After(r.last) {
		r.last = last
	}
	n := max(e.Count, 1)
	if r.events%r.stride == 0 {
		r.kept = append(r.kept, e)
		f.kept++
		f.keptBytes += e.size()
	}
	r.newest = e
	r.events++
	r.occurrences += n
	id := f.hash(e.object)
	if _, known := r.objects[id]; !known {
		r.objects[id] = e.object.Kind == "Pod"
		if r.objects[id] {
			r.pods++
		}
	}
	if e.node != "" && len(r.nodes) < maxCounted {
		r.nodes[e.node] = struct{}{}
	}
	if e.Type == corev1.EventTypeWarning || r.kind == "" {
		r.kind = e.Type
	}
	if worse(e.Level, r.level) {
		r.level = e.Level
	}
	if e.after != "" {
		if r.after == nil {
			r.after = map[string]int{}
		}
		r.after[e.after]++
	}
	if r.key.routine != "" {
		r.step(e.Reason, 1, n)
		return
	}
	if e.Resolved != "" {
		r.message.add(e.Resolved)
	} else {
		r.message.add(e.Message)
	}
}

func (r *row) step(reason string, events, occurrences int) {
	i := slices.IndexFunc(r.steps, func(s Step) bool { return s.Reason == reason })
	if i < 0 {
		if len(r.steps) >= maxSteps {
			return
		}
		i = len(r.steps)
		r.steps = append(r.steps, Step{Reason: reason})
	}
	r.steps[i].Events += events
	r.steps[i].Occurrences += occurrences
}

// merge adds a later row of the same key.
func (r *row) merge(o *row) {
	if o.first.Before(r.first) {
		r.first = o.first
	}
	if o.last.After(r.last) {
		r.last = o.last
	}
	r.events += o.events
	r.occurrences += o.occurrences
	if len(r.objects) < len(o.objects) {
		r.objects, o.objects = o.objects, r.objects
		r.pods, o.pods = o.pods, r.pods
	}
	for id, pod := range o.objects {
		if _, known := r.objects[id]; !known {
			r.objects[id] = pod
			if pod {
				r.pods++
			}
		}
	}
	if worse(o.level, r.level) {
		r.level = o.level
	}
	if r.after == nil {
		r.after = o.after
	} else {
		for reason, n := range o.after {
			r.after[reason] += n
		}
	}
	for name := range o.nodes {
		r.nodes[name] = struct{}{}
	}
	for _, s := range o.steps {
		r.step(s.Reason, s.Events, s.Occurrences)
	}
	if o.kind == corev1.EventTypeWarning {
		r.kind = o.kind
	}
	r.message.merge(&o.message)
	for r.stride < o.stride {
		r.thin()
	}
	for o.stride < r.stride {
		o.thin()
	}
	r.kept = append(r.kept, o.kept...)
	r.newest = o.newest
}

// thin drops every second kept Event, but not the first.
func (r *row) thin() {
	r.stride *= 2
	half := r.kept[:0]
	for i, e := range r.kept {
		if i%2 == 0 {
			half = append(half, e)
		}
	}
	clear(r.kept[len(half):])
	r.kept = half
}

// size is about the memory of what a kept Event does not share with others.
func (e *kept) size() int { return len(e.Message) + len(e.Resolved) }
