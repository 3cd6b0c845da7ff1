// Package objects learns from Events which object owns which, on which nodes pods ran, and which
// object a uid names.
//
// What it learns is as good as its evidence: a record may name the workload of its object, an Event
// may state that a controller created a pod, or a name may follow the rules of Kubernetes' own
// controllers. Events can be written by anyone who may create Events, so an Event is only trusted
// about owners in its own namespace.
package objects

import (
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// Object names an object of the cluster. A cluster-scoped object has no Namespace.
type Object struct {
	Kind, Namespace, Name string
}

// String returns kind/name, as --for accepts it.
func (o Object) String() string { return strings.ToLower(o.Kind) + "/" + o.Name }

// Evidence is why an owner is known. A larger value is weaker.
type Evidence uint8

const (
	Recorded Evidence = iota + 1 // the record names the workload
	Stated                       // an Event says so, such as SuccessfulCreate
	Inferred                     // a naming rule
)

func (e Evidence) String() string {
	return [...]string{"", "recorded", "stated", "inferred"}[e]
}

// Unknown is the kind of an owner whose name follows from a naming rule, but not its kind.
const Unknown = "workload"

// clusterScoped are kinds without a namespace. Events about their objects are in "default".
var clusterScoped = map[string]bool{
	"Node": true, "Namespace": true, "PersistentVolume": true, "StorageClass": true, "CSINode": true, "CSIDriver": true,
	"VolumeAttachment": true, "PriorityClass": true, "ClusterRole": true, "ClusterRoleBinding": true, "RuntimeClass": true,
	"CustomResourceDefinition": true, "APIService": true, "IngressClass": true, "CertificateSigningRequest": true,
	"NodeClaim": true, "NodePool": true, "MutatingWebhookConfiguration": true, "ValidatingWebhookConfiguration": true,
}

// New returns the Object of that name; namespace is ignored for a cluster-scoped kind.
func New(kind, namespace, name string) Object {
	if clusterScoped[kind] {
		namespace = ""
	}
	return Object{Kind: kind, Namespace: namespace, Name: name}
}

// Of returns the object that a record is about.
func Of(r *format.Record) Object {
	o := &r.Event.InvolvedObject
	namespace := o.Namespace
	if namespace == "" && !r.WholeEvent {
		namespace = r.Event.Namespace
	}
	return New(o.Kind, namespace, o.Name)
}

const (
	// maxObjects bounds the memory of a Graph to about 50 MB.
	maxObjects = 1 << 17

	// maxName is the length of the longest name that Kubernetes accepts. Longer ones are ignored.
	maxName = 253

	// maxDepth bounds the way to the top owner: CronJob, Job, Pod are three.
	maxDepth = 8

	// maxStays is the number of nodes that are kept for a pod, which runs on one.
	maxStays = 8
)

// Graph holds what was learned. Its memory is bounded; see Full. It is not safe for concurrent use.
type Graph struct {
	objects  []node
	ids      map[Object]int32
	uids     map[uid]int32
	interned map[string]string
	limit    int // of objects and of uids
	full     bool

	owned map[Object][]Object // of Owned; nil: to be built again
}

// node is an object of the graph.
type node struct {
	Object
	owner    int32 // as stated, or -1
	workload int32 // as recorded, or -1
	stays    []Stay
}

// Stay is the time in which a pod was seen on a node.
type Stay struct {
	Node        string
	First, Last time.Time // of the Events that say so
	Begun       bool      // at First, the pod was scheduled to the node
}

// NewGraph returns an empty Graph.
func NewGraph() *Graph {
	return &Graph{ids: map[Object]int32{}, uids: map[uid]int32{}, interned: map[string]string{}, limit: maxObjects}
}

// Full reports whether there were more objects than a Graph holds: nothing is known about those.
func (g *Graph) Full() bool { return g.full }

// Know adds an object without any Event about it.
func (g *Graph) Know(o Object) { g.id(o) }

// Known reports whether an Event is about the object or names it.
func (g *Graph) Known(o Object) bool { _, ok := g.ids[o]; return ok }

// All returns the known objects in the order in which they became known.
func (g *Graph) All() []Object {
	all := make([]Object, len(g.objects))
	for i := range g.objects {
		all[i] = g.objects[i].Object
	}
	return all
}

// id returns the number of an object, -1 if it cannot be added.
func (g *Graph) id(o Object) int32 {
	if id, ok := g.ids[o]; ok {
		return id
	}
	if o.Name == "" || o.Kind == "" || len(o.Name) > maxName || len(o.Kind) > maxName || len(o.Namespace) > maxName {
		return -1
	}
	if len(g.objects) >= g.limit {
		g.full = true
		return -1
	}
	id := int32(len(g.objects))
	o = Object{Kind: g.intern(o.Kind), Namespace: g.intern(o.Namespace), Name: strings.Clone(o.Name)} // not a part of a line
	g.objects = append(g.objects, node{Object: o, owner: -1, workload: -1})
	g.ids[o] = id
	g.owned = nil
	return id
}

// intern returns one copy of a string that many objects share. There are as many as namespaces,
// nodes and kinds; hostile ones are bounded by the number of objects.
func (g *Graph) intern(s string) string {
	if first, ok := g.interned[s]; ok {
		return first
	}
	s = strings.Clone(s)
	g.interned[s] = s
	return s
}

// Fields in which a record may name the workload of its object. They are zero, and their values
// empty, while records have no such fields.
var (
	workloadKind, _ = event.ParseField("workload_kind")
	workloadName, _ = event.ParseField("workload_name")
)

// Observe learns from a record. Records may come in any order; of several owners that Events state,
// the first one observed counts.
func (g *Graph) Observe(r *format.Record) {
	if r.Event == nil || r.Gap {
		return
	}
	o := Of(r)
	id := g.id(o)
	if id < 0 {
		return
	}
	e := r.Event
	g.name(string(e.InvolvedObject.UID), id)
	if related := e.Related; related != nil {
		g.name(string(related.UID), g.id(New(related.Kind, related.Namespace, related.Name)))
	}
	if kind, name := r.Value(workloadKind), r.Value(workloadName); kind != "" && name != "" {
		g.recordWorkload(id, New(kind, o.Namespace, name))
	}
	f := parse(o, e.Reason, e.Message)
	for _, l := range f.owned {
		if owned := g.id(l.owned); owned >= 0 && l.owned != l.owner {
			g.setOwner(owned, g.id(l.owner))
		}
	}
	for _, n := range f.named {
		g.name(n.uid, g.id(n.object))
	}
	if o.Kind != "Pod" {
		if f.node != "" && f.pod.Name != "" {
			g.stay(g.id(f.pod), f.node, r.Time, false)
		}
		return
	}
	if f.node == "" {
		f.node = r.Value(event.FieldNode)
	}
	g.stay(id, f.node, r.Time, e.Reason == "Scheduled")
}

func (g *Graph) recordWorkload(id int32, workload Object) {
	if w := g.id(workload); w >= 0 && w != id {
		g.objects[id].workload = w
		g.owned = nil
	}
}

func (g *Graph) setOwner(owned, owner int32) {
	if owner < 0 || g.objects[owned].owner >= 0 {
		return
	}
	g.objects[owned].owner = owner
	g.owned = nil
}

// stay adds that a pod was on a node at a time.
func (g *Graph) stay(pod int32, name string, at time.Time, begun bool) {
	if pod < 0 || name == "" || len(name) > maxName {
		return
	}
	stays := g.objects[pod].stays
	for i := range stays {
		if s := &stays[i]; s.Node == name {
			s.Begun = s.Begun || begun
			if at.Before(s.First) {
				s.First = at
			}
			if at.After(s.Last) {
				s.Last = at
			}
			return
		}
	}
	if len(stays) < maxStays {
		g.objects[pod].stays = append(stays, Stay{Node: g.intern(name), First: at, Last: at, Begun: begun})
	}
}

// Owner returns the direct owner of an object.
func (g *Graph) Owner(o Object) (Object, Evidence, bool) {
	if id, ok := g.ids[o]; ok {
		switch n := &g.objects[id]; {
		case n.owner >= 0:
			return g.objects[n.owner].Object, Stated, true
		case n.workload >= 0:
			return g.objects[n.workload].Object, Recorded, true
		}
	}
	owner, ok := g.inferOwner(o)
	return owner, Inferred, ok
}

// Workload returns the controller at the top, the object itself if it has none, and the weakest
// evidence on the way there, zero for the object itself.
func (g *Graph) Workload(o Object) (Object, Evidence) {
	weakest := Evidence(0)
	passed := []Object{o}
	for len(passed) < maxDepth {
		if id, ok := g.ids[o]; ok && g.objects[id].workload >= 0 {
			return g.objects[g.objects[id].workload].Object, max(weakest, Recorded)
		}
		owner, evidence, ok := g.Owner(o)
		if !ok || slices.Contains(passed, owner) {
			break
		}
		o, weakest = owner, max(weakest, evidence)
		passed = append(passed, o)
	}
	return o, weakest
}

// Owned returns the known objects whose direct owner is o, in the order in which they became known.
func (g *Graph) Owned(o Object) []Object {
	if g.owned == nil {
		g.owned = map[Object][]Object{}
		for i := range g.objects {
			n := g.objects[i].Object
			if owner, _, ok := g.Owner(n); ok {
				g.owned[owner] = append(g.owned[owner], n)
			}
		}
	}
	return g.owned[o]
}

// Stays returns the nodes on which a pod was seen, by the time it was first seen there.
func (g *Graph) Stays(o Object) []Stay {
	id, ok := g.ids[o]
	if !ok {
		return nil
	}
	stays := slices.Clone(g.objects[id].stays)
	slices.SortStableFunc(stays, func(a, b Stay) int { return a.First.Compare(b.First) })
	return stays
}

// Nodes returns the nodes that a pod was scheduled to or reported from, in order of time.
func (g *Graph) Nodes(o Object) []string {
	var names []string
	for _, s := range g.Stays(o) {
		names = append(names, s.Node)
	}
	return names
}
