package timeline

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/input"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/loki"
	"github.com/hindsight-events/hindsight/query/objects"
)

// gatherer is one execution of Gather. It belongs to one goroutine.
type gatherer struct {
	Request
	*scope
	graph  *objects.Graph
	latest *query.Latest
	spool  input.TimeSorter

	selectedObjects map[objects.Object]bool
	ended           map[objects.Object]time.Time // pods, by their last Event of that kind
	gaps            map[objects.Object]bool      // objects of gap records
	preemptions     []preemption
	relation        map[objects.Object]Relation
	windows         map[string][]window // of nodes

	entries, spooled int
	problems         []string // of files
	clusters         map[string]bool

	// What is omitted.
	noTime, noNamespace, noUID, foreign  int // lines
	dropped, unknown, notLookedUp, nodes int

	client         *loki.Client // nil: files
	bytesBefore    int64
	requestsBefore int
}

// preemption is an Event with the reason Preempted.
type preemption struct {
	victim objects.Object
	objects.Preemption
	at time.Time
}

// reading is a part of the Events to read.
type reading struct {
	what      string // for the progress: "Events of …"
	selection *query.Selection
	from, to  time.Time
	// wanted, if not nil, decides which records are used.
	wanted func(*format.Record) bool
}

func newGatherer(r Request) (*gatherer, error) {
	s, err := newScope(r.Filter)
	if err != nil {
		return nil, err
	}
	g := &gatherer{
		Request: r, scope: s,
		graph: objects.NewGraph(), latest: query.NewLatest(),
		selectedObjects: map[objects.Object]bool{}, ended: map[objects.Object]time.Time{}, clusters: map[string]bool{},
		gaps: map[objects.Object]bool{},
	}
	if g.selected.Name != "" {
		g.graph.Know(g.selected)
		g.selectedObjects[g.selected] = true
	}
	if l, ok := r.Open(s.base).(*query.Loki); ok {
		g.client = l.Client
		g.bytesBefore, g.requestsBefore = l.Client.Fetched()
	}
	var overflow error
	g.spool.Overflow = func(err error) { overflow = err }
	g.spool.Visit = func(*format.Record) error {
		return fmt.Errorf("too many Events to sort in memory, and in a temporary file: %w", overflow)
	}
	return g, nil
}

// read reads Events: each reading by its own query in Loki, all of them in one pass of files.
func (g *gatherer) read(ctx context.Context, readings ...reading) error {
	if len(readings) == 0 {
		return nil
	}
	if files, ok := g.Open(g.base).(query.Files); ok {
		return g.readFiles(ctx, files, readings)
	}
	for _, r := range readings {
		g.Progress.Step(r.what, r.from, r.to)
		if err := g.Open(r.selection).Range(ctx, r.from, r.to, func(e format.Entry) error { return g.visit(e, r) }); err != nil {
			return err
		}
	}
	return nil
}

func (g *gatherer) readFiles(ctx context.Context, files query.Files, readings []reading) error {
	from := slices.MinFunc(readings, func(a, b reading) int { return a.from.Compare(b.from) }).from
	g.noTime, g.noNamespace, g.noUID, g.foreign = 0, 0, 0, 0 // the same lines again
	err := files.Files.Range(ctx, from, func(e format.Entry) error { return g.visit(e, readings...) })
	if err != nil {
		return err
	}
	g.problems, err = files.Problems()
	return err
}

// visit uses an entry if one of the readings wants it.
func (g *gatherer) visit(e format.Entry, readings ...reading) error {
	r, err := g.Parser.Parse(e)
	if err != nil {
		g.foreign++
		return nil
	}
	g.entries++
	g.Progress.Update(r.Time, g.entries)
	if r.Time.IsZero() {
		g.noTime++
		return nil
	}
	for _, reading := range readings {
		if r.Time.Before(reading.from) || !r.Time.Before(reading.to) || !reading.selection.Match(&r) {
			continue
		}
		if reading.wanted == nil || reading.wanted(&r) {
			return g.add(&r)
		}
	}
	return nil
}

// add learns from a record, and keeps it for Each if it may be visited.
func (g *gatherer) add(r *format.Record) error {
	o := objects.Of(r)
	if r.Event.UID == "" {
		g.noUID++
	}
	if r.Event.Namespace == "" && o == (objects.Object{Kind: o.Kind, Name: o.Name}) && o != objects.New(o.Kind, "x", o.Name) {
		g.noNamespace++ // and its kind has one
		return nil
	}
	if c := r.Labels["cluster"]; c != "" && len(g.clusters) < 2 {
		g.clusters[c] = true
	}
	g.graph.Observe(r)
	if r.Gap {
		g.gaps[o] = true
	}
	if g.object != nil && g.object.Match(r) && len(g.selectedObjects) < maxNodes {
		g.selectedObjects[o] = true
	}
	if p, ok := objects.ParsePreempted(r.Event.Message); ok && r.Event.Reason == "Preempted" {
		if len(g.preemptions) < maxPreemptions {
			g.preemptions = append(g.preemptions, preemption{victim: o, Preemption: p, at: r.Time})
		} else {
			g.notLookedUp++
		}
	}
	if endsPod(r) && r.Time.After(g.ended[o]) {
		g.ended[o] = r.Time
	}
	if r.Time.Before(g.From) || !r.Time.Before(g.To) || !r.Gap && !g.shown.Match(r) {
		return nil
	}
	if g.spooled >= maxSpooled || g.dropped > 0 {
		g.dropped++
		return nil
	}
	g.spooled++
	g.latest.Observe(r)
	return g.spool.Add(r)
}

// endsPod reports whether an Event is about the end of its pod.
func endsPod(r *format.Record) bool {
	switch r.Event.Reason {
	case "Killing":
		return strings.HasPrefix(r.Event.Message, "Stopping container")
	case "Preempted", "Preempting", "Evicted", "TaintManagerEviction", "NodeControllerEviction":
		return r.Event.InvolvedObject.Kind == "Pod"
	}
	return false
}

// readScope reads what was asked for.
func (g *gatherer) readScope(ctx context.Context) error {
	selections, err := g.selections()
	if err != nil {
		return err
	}
	var readings []reading
	for _, s := range selections {
		readings = append(readings, reading{what: "Events", selection: s, from: g.From, to: g.To})
	}
	return g.read(ctx, readings...)
}

// maxRounds bounds how often Events about objects are read that earlier ones named.
const maxRounds = 4

// readOwned reads Events about objects that belong to the selected object, or ran on the selected
// node, but do not have the names that the first reading looked for.
func (g *gatherer) readOwned(ctx context.Context) error {
	done := map[objects.Object]bool{}
	for range maxRounds {
		g.relate()
		var missing []objects.Object
		for o := range g.graph.All() {
			related := g.relation[o]
			if (related == Selected || related == Owned || related == Owner || related == Related) && !g.covers(o) && !done[o] && o.Kind != "Node" {
				missing = append(missing, o)
				done[o] = true
			}
		}
		readings, err := g.named("Events of owned objects", missing, func(o objects.Object) (time.Time, time.Time) { return g.lifetime(o) })
		if err != nil || len(readings) == 0 {
			return err
		}
		if err := g.read(ctx, readings...); err != nil {
			return err
		}
	}
	return nil
}

// lifetime returns the part of the range in which a pod of the selected node existed, as far as it is
// known.
func (g *gatherer) lifetime(o objects.Object) (from, to time.Time) {
	from, to = g.From, g.To
	stays := g.graph.Stays(o)
	if g.node == "" || len(stays) == 0 {
		return from, to
	}
	if first := stays[0].First.Add(-before); first.After(from) {
		from = first
	}
	if last := slices.MaxFunc(stays, func(a, b objects.Stay) int { return a.Last.Compare(b.Last) }).Last.Add(before); last.Before(to) {
		to = last
	}
	return from, to
}

// named returns readings of Events about objects, by name.
func (g *gatherer) named(what string, all []objects.Object, lifetime func(objects.Object) (time.Time, time.Time)) ([]reading, error) {
	slices.SortFunc(all, func(a, b objects.Object) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	var readings []reading
	for len(all) > 0 {
		namespace, wanted := all[0].Namespace, map[string]bool{}
		r := reading{what: what}
		var names []string
		size := 0
		for len(all) > 0 && all[0].Namespace == namespace && size < batchBytes {
			o := all[0]
			all = all[1:]
			from, to := lifetime(o)
			if r.from.IsZero() || from.Before(r.from) {
				r.from = from
			}
			if to.After(r.to) {
				r.to = to
			}
			if !wanted[o.Name] {
				names, size = append(names, regexp.QuoteMeta(o.Name)), size+len(o.Name)+1
				wanted[o.Name] = true
			}
		}
		if len(readings) == maxBatches {
			g.notLookedUp += len(wanted)
			continue
		}
		selection, err := g.base.WithPattern(event.FieldName, strings.Join(names, "|"))
		if err != nil {
			return nil, err
		}
		if namespace == "" {
			namespace = "default" // where recorders write Events about objects without a namespace
		}
		r.selection = selection.WithAny(event.FieldNamespace, namespace)
		readings = append(readings, r)
	}
	return readings, nil
}

// readAround reads what happened to the nodes of the pods, and what the pods did to others.
func (g *gatherer) readAround(ctx context.Context) error {
	g.relate()
	whole := g.node == "" && g.namespace == "" && g.names == nil
	if whole {
		return nil // all Events were read
	}
	var readings []reading
	if nodes := g.nodesOf(); len(nodes) > 0 {
		batches, err := g.named("Events of nodes", nodes, func(o objects.Object) (time.Time, time.Time) {
			w := g.windows[o.Name]
			return w[0].from, w[len(w)-1].to
		})
		if err != nil {
			return err
		}
		for i := range batches {
			batches[i].wanted = func(r *format.Record) bool { return r.Event.InvolvedObject.Kind == "Node" }
		}
		readings = append(readings, batches...)
	}
	readings = append(readings, reading{
		what: "preemptions and gaps", selection: g.base.WithAny(event.FieldReason, "Preempted", event.GapReason),
		from: g.From, to: g.To,
		wanted: func(r *format.Record) bool {
			if r.Gap {
				return g.namespace == "" || r.Event.InvolvedObject.Name == g.namespace || r.Event.InvolvedObject.Name == "*"
			}
			p, ok := objects.ParsePreempted(r.Event.Message)
			if !ok {
				return false
			}
			if p.UID != "" {
				p.Preemptor, ok = g.graph.Named(p.UID)
			}
			return ok && g.isOurs(p.Preemptor) && !g.covers(objects.Of(r))
		},
	})
	return g.read(ctx, readings...)
}

// isOurs reports whether a pod is selected or owned.
func (g *gatherer) isOurs(o objects.Object) bool {
	r := g.relationOf(o)
	return r == Selected || r == Owned
}
