package timeline

import (
	"context"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/objects"
)

// window is a range of time.
type window struct{ from, to time.Time }

// relate computes the relations of all known objects.
func (g *gatherer) relate() {
	g.relation = map[objects.Object]Relation{}
	if g.names == nil && g.node == "" {
		g.relateNamespace()
	} else {
		g.relateObjects()
	}
	for _, p := range g.preemptions {
		preemptor := p.Preemptor
		if p.UID != "" {
			var ok bool
			if preemptor, ok = g.graph.Named(p.UID); !ok {
				continue
			}
		}
		switch {
		case g.isOurs(p.victim):
			g.addRelation(preemptor, Preemptor)
			for range maxRounds {
				owner, _, ok := g.graph.Owner(preemptor)
				if !ok || owner.Kind == "Node" {
					break
				}
				g.addRelation(owner, Preemptor)
				preemptor = owner
			}
		case g.isOurs(preemptor):
			g.addRelation(p.victim, Victim)
		}
	}
	g.relateNodes()
	for o := range g.gaps {
		g.addRelation(o, InGap)
	}
}

func (g *gatherer) addRelation(o objects.Object, r Relation) {
	if g.relationOf(o) == Unrelated {
		g.relation[o] = r
	}
}

// relationOf returns the relation of an object: that of all objects of a namespace needs no map.
func (g *gatherer) relationOf(o objects.Object) Relation {
	if g.names == nil && g.node == "" && (g.namespace == "" || o.Namespace == g.namespace) {
		return Selected
	}
	return g.relation[o]
}

func (g *gatherer) relateNamespace() {
	if g.namespace != "" {
		g.relation[objects.New("Namespace", "", g.namespace)] = Selected
	}
}

// relateObjects relates the selected objects, or the pods of the selected node, with their owners and
// what they own.
func (g *gatherer) relateObjects() {
	if g.node != "" {
		g.relation[objects.New("Node", "", g.node)] = Selected
	}
	for o := range g.selectedObjects {
		g.relation[o] = Selected
	}
	for o := range g.graph.All() {
		if g.node != "" {
			if (g.namespace == "" || o.Namespace == g.namespace) && slices.Contains(g.graph.Nodes(o), g.node) {
				g.relation[o] = Selected
			}
			continue
		}
		if r := g.ownedRelation(o); r != Unrelated {
			g.addRelation(o, r)
		}
	}
	if g.node != "" {
		return
	}
	for o := range g.selectedObjects {
		for range maxRounds {
			owner, _, ok := g.graph.Owner(o)
			if !ok || owner.Kind == "Node" {
				break
			}
			g.addRelation(owner, Owner)
			o = owner
		}
	}
}

// ownedRelation returns Owned if a selected object is an owner of o, and Related if only their names
// say that they belong together.
func (g *gatherer) ownedRelation(o objects.Object) Relation {
	related := Owned
	for at := range maxRounds {
		owner, evidence, ok := g.graph.Owner(o)
		if !ok {
			return Unrelated
		}
		if at == 0 && evidence == objects.Inferred && o.Kind != "Pod" && o.Kind != "ReplicaSet" && o.Kind != "Job" {
			related = Related
		}
		if g.selectedObjects[owner] || owner.Kind == objects.Unknown && g.selectedNamed(owner) {
			return related
		}
		o = owner
	}
	return Unrelated
}

// selectedNamed reports whether a selected object, which may own pods, has that name.
func (g *gatherer) selectedNamed(o objects.Object) bool {
	for s := range g.selectedObjects {
		if s.Name == o.Name && s.Namespace == o.Namespace && s.Kind != "Pod" {
			return true
		}
	}
	return false
}

// relateNodes finds the nodes of the pods, and when the pods were there.
func (g *gatherer) relateNodes() {
	g.windows = map[string][]window{}
	if g.node != "" || g.names == nil && g.namespace == "" {
		return
	}
	for o := range g.graph.All() {
		if o.Kind != "Pod" || !g.isOurs(o) {
			continue
		}
		for _, s := range g.graph.Stays(o) {
			w := window{g.From, g.To}
			if from := s.First.Add(-nearby); s.Begun && from.After(w.from) {
				w.from = from
			}
			if end, ok := g.ended[o]; ok && end.Add(nearby).Before(w.to) {
				w.to = end.Add(nearby)
			}
			g.windows[s.Node] = append(g.windows[s.Node], w)
		}
	}
	for name, all := range g.windows {
		g.windows[name] = merged(all)
		g.addRelation(objects.New("Node", "", name), OnNode)
	}
}

// merged returns the union of ranges, in order.
func merged(all []window) []window {
	slices.SortFunc(all, func(a, b window) int { return a.from.Compare(b.from) })
	union := all[:1]
	for _, w := range all[1:] {
		last := &union[len(union)-1]
		switch {
		case w.from.After(last.to):
			union = append(union, w)
		case w.to.After(last.to):
			last.to = w.to
		}
	}
	return slices.Clone(union)
}

// nodesOf returns the nodes whose Events are to be read.
func (g *gatherer) nodesOf() []objects.Object {
	var nodes []objects.Object
	for name := range g.windows {
		nodes = append(nodes, objects.New("Node", "", name))
	}
	slices.SortFunc(nodes, func(a, b objects.Object) int { return g.windows[a.Name][0].from.Compare(g.windows[b.Name][0].from) })
	if len(nodes) > maxNodes {
		g.nodes = len(nodes) - maxNodes
		nodes = nodes[:maxNodes]
	}
	return nodes
}

// gathered returns the result, before Each.
func (g *gatherer) gathered() *Gathered {
	out := &Gathered{Graph: g.graph, Relation: g.relationOf, gatherer: g}
	if g.client != nil {
		bytes, requests := g.client.Fetched()
		out.Bytes, out.Requests = bytes-g.bytesBefore, requests-g.requestsBefore
	}
	omit := func(n int, text string) {
		if n > 0 {
			out.Omissions = append(out.Omissions, Omission{Text: text, Count: n})
		}
	}
	for _, problem := range g.problems {
		out.Omissions = append(out.Omissions, Omission{Text: problem})
	}
	omit(g.foreign, "lines that Hindsight did not write")
	omit(g.noTime, "lines without a time")
	omit(g.noNamespace, "lines without a namespace: they cannot be joined with their object")
	omit(g.noUID, "lines without the uid of their Event: each counts as an Event, and repeats are not recognized")
	omit(g.dropped, "states beyond those that can be sorted: narrow the range or the selection")
	omit(g.unknown, "preemptors of whom only the uid is known: no stored Event is about them")
	omit(g.notLookedUp, "objects and preemptors that were not looked up, because there are too many")
	omit(g.nodes, "nodes whose Events were not read, because there are too many")
	if g.graph.Full() {
		out.Omissions = append(out.Omissions, Omission{Text: "owners and nodes of some objects, because there are too many objects"})
	}
	if g.latest.Full() {
		out.Omissions = append(out.Omissions, Omission{Text: "the latest state of some Events, because there are too many: they count several times"})
	}
	if len(g.clusters) > 1 {
		out.Omissions = append(out.Omissions, Omission{Text: "which cluster an Event is from: several have Events here, name one with --cluster"})
	}
	return out
}

// each is Gathered.Each.
func (g *gatherer) each(ctx context.Context, out *Gathered, visit func(*format.Record) error) error {
	elsewhere := 0
	n := 0
	g.spool.Visit = func(r *format.Record) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		o := objects.Of(r)
		switch relation := g.relationOf(o); {
		case r.Gap:
		case relation == Unrelated:
			return nil
		case relation == OnNode && !g.during(o.Name, r.Time):
			elsewhere++
			return nil
		}
		if !g.latest.Take(r) {
			return nil
		}
		return visit(r)
	}
	err := g.spool.Flush()
	if elsewhere > 0 {
		out.Omissions = append(out.Omissions, Omission{Text: "Events of nodes at times when none of the pods was there", Count: elsewhere})
	}
	return err
}

// during reports whether a pod was on a node at a time.
func (g *gatherer) during(node string, at time.Time) bool {
	for _, w := range g.windows[node] {
		if !at.Before(w.from) && !at.After(w.to) {
			return true
		}
	}
	return false
}
