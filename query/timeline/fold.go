package timeline

import (
	"hash/maphash"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/objects"
)

const (
	// MaxEvents is the number of Events that a Timeline has whole. Of rows with many, it keeps every
	// second, fourth, … so that all rows keep their first, their last, and marks over their time.
	MaxEvents = 20_000

	// maxKeptBytes bounds the messages of the kept Events, maxMessage each of them.
	maxKeptBytes = 8 << 20
	maxMessage   = 4 << 10

	// maxName bounds names, kinds and reasons: nobody checks those of an Event's object. Longer names
	// than 253 bytes are not valid.
	maxName = 256

	// maxRows is the number of rows at which shorter pauses no longer separate them, and at which
	// Events that fit in no row share one.
	maxRows = 4000

	// maxCoarse is the number of further rows, each of a reason.
	maxCoarse = 500

	// minPause is the shortest pause that separates two rows of equal Events.
	minPause = time.Minute

	// quietPause is the pause after which a routine begins a new row if something disturbed it.
	quietPause = 5 * time.Second

	// maxCounted is the number of nodes that are counted one by one.
	maxCounted = 10_000
)

// Folder folds records into a Timeline. It holds at most MaxEvents Events, and for each row the
// hashes of its objects, 8 bytes each. It is not safe for concurrent use.
type Folder struct {
	graph    *objects.Graph
	query    Query
	relation func(objects.Object) string

	rows     map[rowKey][]*row // of a key, in the order of time
	rowCount int
	pause    time.Duration

	kept      int // in all rows
	keptBytes int
	sequence  int
	groups    map[objects.Object]objects.Object
	pods      map[uint64]podState
	lanes     map[objects.Object]int32 // numbers of workloads
	starts    []time.Time              // of the last pod of each
	nodes     map[string]*nodeState
	objects   map[uint64]struct{}
	strings   map[string]string

	totals    Totals
	thinned   int // times that the kept Events were halved
	cut       int // messages
	overflow  int // Events in the shared row
	nodesFull bool

	seed maphash.Seed
}

// NewFolder returns a Folder. The graph must know what the records say about objects already.
// relation returns why an object is in the Timeline; nil: unknown.
func NewFolder(g *objects.Graph, q Query, relation func(objects.Object) string) *Folder {
	if relation == nil {
		relation = func(objects.Object) string { return "" }
	}
	return &Folder{
		graph: g, query: q, relation: relation,
		rows: map[rowKey][]*row{}, pause: minPause,
		groups: map[objects.Object]objects.Object{}, pods: map[uint64]podState{}, lanes: map[objects.Object]int32{}, nodes: map[string]*nodeState{},
		objects: map[uint64]struct{}{}, strings: map[string]string{}, seed: maphash.MakeSeed(),
	}
}

// podState is what the Events say about a pod last.
type podState struct {
	lane    int32 // number of its workload
	waiting bool  // FailedScheduling, and not Scheduled since
	started bool
	evicted bool

	preempted bool
}

// nodeState counts the Events of a node and of pods on it.
type nodeState struct {
	open    map[string]bool // reasons of troubles that have not ended
	trouble string          // reason of the first one of the last minutes
	at      time.Time       // of the last one

	events, occurrences, warnings, preempted, evicted int
	firstWarning, lastWarning                         time.Time
}

// kept is an Event that the Timeline will have whole.
type kept struct {
	Event
	object   objects.Object
	node     string
	by       objects.Object // the pod that preempted it
	byUID    string
	after    string // what happened to its node before
	sequence int
}

// Add adds a record; records come oldest first, each Event once.
func (f *Folder) Add(r *format.Record) {
	if r.Event == nil {
		return
	}
	e := f.keep(r)
	key := f.keyOf(r, &e)
	first, last := e.First, e.Time
	switch {
	case r.Gap:
		first, last = gapSpan(r, e.Time)
	case first.IsZero(), key.routine != "", recoveries[e.Reason] != "":
		first = last // it is not going on all the time between two occurrences
	}
	e.after = f.causeOf(&e)
	f.count(&e, key)
	row := f.rowFor(key, first, last)
	row.add(f, &e, first, last)
	if f.kept > MaxEvents || f.keptBytes > maxKeptBytes {
		f.thin()
	}
}

// causeOf returns the reason of what happened to the node of an evicted pod just before, empty if
// nothing did.
func (f *Folder) causeOf(e *kept) string {
	s := f.nodes[e.node]
	if within := evictions[e.Reason]; evicts(&e.Event) && s != nil && s.trouble != "" && e.Time.Sub(s.at) <= within {
		return s.trouble
	}
	return ""
}

// keep copies what the Timeline has of a record.
func (f *Folder) keep(r *format.Record) kept {
	o := objects.Of(r)
	e := kept{object: f.internObject(o), sequence: f.sequence}
	f.sequence++
	message := cutTo(r.Event.Message, maxMessage)
	if message != r.Event.Message {
		f.cut++
	}
	e.Event = Event{
		Time: r.Time, First: firstTime(r),
		Type: f.intern(cutTo(r.Event.Type, maxName)), Reason: f.intern(cutTo(r.Event.Reason, maxName)),
		Component: f.intern(cutTo(r.Value(event.FieldComponent), maxName)),
		Level:     f.intern(r.Value(event.FieldDetectedLevel)), Message: f.intern(message), UID: strings.Clone(cutTo(string(r.Event.UID), maxName)),
		Gap: r.Gap,
	}
	if n := int(r.Count()); n > 1 {
		e.Count = n
	}
	if resolved, _ := f.graph.Resolve(message); resolved != message {
		e.Resolved = f.intern(resolved)
	}
	if p, ok := preemptorOf(r); ok {
		e.by, e.byUID = f.internObject(p.Preemptor), f.intern(p.UID)
		if named, ok := f.graph.Named(p.UID); ok {
			e.by = named
		}
		if e.by.Name == "" {
			e.by = objects.Object{}
		}
		e.node = p.Node
	}
	if e.node == "" {
		e.node = f.nodeOf(r, o)
	}
	e.node = f.intern(cutTo(e.node, maxName))
	return e
}

// firstTime is the first occurrence of a repeated Event, zero if that is its time or not credible.
func firstTime(r *format.Record) time.Time {
	first := r.FirstTime()
	if r.Count() <= 1 && r.Event.Series == nil || !r.ObservedTime.IsZero() || first.Year() < 2014 || !first.Before(r.Time) {
		return time.Time{}
	}
	return first.UTC()
}

// intern returns one copy of a string, which is not a part of a stored line.
func (f *Folder) intern(s string) string {
	if own, ok := f.strings[s]; ok {
		return own
	}
	if len(f.strings) >= 2*MaxEvents {
		clear(f.strings) // it only saves memory
	}
	s = strings.Clone(s)
	f.strings[s] = s
	return s
}

func (f *Folder) internObject(o objects.Object) objects.Object {
	return objects.Object{Kind: f.intern(cutTo(o.Kind, maxName)), Namespace: f.intern(cutTo(o.Namespace, maxName)), Name: f.intern(cutTo(o.Name, maxName))}
}

func (f *Folder) hash(o objects.Object) uint64 {
	return maphash.Comparable(f.seed, o)
}

// count counts an Event in the totals, for its pod and for its node.
func (f *Folder) count(e *kept, key rowKey) {
	n := max(e.Count, 1)
	warning := e.Type == corev1.EventTypeWarning && !e.Gap
	f.totals.Events++
	f.totals.Occurrences += n
	if warning {
		f.totals.Warnings++
	}
	if !e.Gap {
		f.objects[f.hash(e.object)] = struct{}{}
	}
	if e.node != "" && key.routine == "" {
		f.countNode(e, n, warning)
	}
	if e.object.Kind == "Pod" {
		f.countPod(e, key)
	}
}

func (f *Folder) countNode(e *kept, n int, warning bool) {
	s := f.nodes[e.node]
	if s == nil {
		if len(f.nodes) >= maxCounted {
			f.nodesFull = true
			return
		}
		s = &nodeState{open: map[string]bool{}}
		f.nodes[e.node] = s
	}
	s.events++
	s.occurrences += n
	if e.Reason == reasonPreempted {
		s.preempted++
	}
	if e.object.Kind == "Node" {
		if ended := recoveries[e.Reason]; ended != "" {
			delete(s.open, ended)
		} else if nodeTroubles[e.Reason] {
			s.open[e.Reason] = true
			if s.trouble == "" || e.Time.Sub(s.at) > evictions["Evicted"] {
				s.trouble = e.Reason
			}
			s.at = e.Time
		}
	}
	if warning {
		s.warnings++
		if s.firstWarning.IsZero() {
			s.firstWarning = e.Time
		}
		s.lastWarning = e.Time
	}
}

func (f *Folder) countPod(e *kept, key rowKey) {
	id := f.hash(e.object)
	s := f.pods[id]
	switch {
	case evicts(&e.Event):
		if !s.evicted {
			f.totals.Evicted++
		}
		if node := f.nodes[e.node]; !s.evicted && node != nil {
			node.evicted++
		}
		s.evicted = true
	case e.Reason == "FailedScheduling":
		s.waiting = true
	case e.Reason == "Scheduled":
		s.waiting = false
	case e.Reason == "Started":
		s.started, s.waiting = true, false
	case e.Reason == reasonPreempted:
		if !s.preempted {
			f.totals.Preempted++
		}
		s.preempted = true
	default:
		return
	}
	lane, known := f.lanes[key.group]
	if !known {
		lane = int32(len(f.lanes))
		f.lanes[key.group] = lane
		f.starts = append(f.starts, time.Time{})
	}
	s.lane = lane
	if e.Reason == "Started" {
		f.starts[lane] = e.Time
	}
	f.pods[id] = s
}

// rowFor returns the row of a key that an Event from first to last belongs to.
func (f *Folder) rowFor(key rowKey, first, last time.Time) *row {
	rows := f.rows[key]
	if n := len(rows); n > 0 && !f.separate(rows[n-1], first) {
		return rows[n-1]
	}
	if f.rowCount >= maxRows {
		f.compact()
		if rows = f.rows[key]; len(rows) > 0 && !f.separate(rows[len(rows)-1], first) {
			return rows[len(rows)-1]
		}
	}
	if f.rowCount >= maxRows { // a coarser row
		f.overflow++
		for _, coarse := range key.coarser() {
			if rows = f.rows[coarse]; len(rows) > 0 {
				return rows[0]
			}
			key = coarse
			if f.rowCount < maxRows+maxCoarse {
				break
			}
		}
	}
	r := &row{key: key, first: first, last: last, objects: map[uint64]bool{}, nodes: map[string]struct{}{}, stride: 1}
	f.rows[key] = append(f.rows[key], r)
	f.rowCount++
	return r
}

// separate reports whether an Event that begins at first is apart from a row. A routine is first
// separated by short pauses; sortRows joins it again where nothing disturbed it.
func (f *Folder) separate(r *row, first time.Time) bool {
	pause := first.Sub(r.last)
	return pause > f.pause || r.key.routine != "" && pause > quietPause
}
