// Package objects learns from Events which object owns which, on which nodes pods ran, and which
// object a uid names.
//
// What it learns is as good as its evidence: a record may name the workload of its object, an Event
// may state that a controller created a pod, or a name may follow the rules of Kubernetes' own
// controllers. Events can be written by anyone who may create Events, so an Event is only trusted
// about owners in its own namespace.
package objects

import (
	"hash/maphash"
	"iter"
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
	Stated                       // by an Event, such as SuccessfulCreate
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
	objects []node
	ids     map[uint64]int32 // by hash; see find
	seed    maphash.Seed
	uids    map[uid]int32    // negative: ^id, named by related objects only
	strings map[string]int32 // kinds, namespaces and names of nodes
	shared  []string         // by the numbers in strings
	long    []int32          // owners of pods whose names are cut, up to maxLong
	limit   int              // of objects and of uids
	full    bool

	owned map[Object][]int32 // of Owned; nil: to be built again
}

// node is an object of the graph. A busy minute has a hundred thousand of them.
type node struct {
	name            string
	kind, namespace int32 // in shared
	owner           int32 // as stated, or -1
	workload        int32 // as recorded, or -1
	stays           *[]Stay
}

// Stay is the time in which a pod was seen on a node.
type Stay struct {
	Node        string
	First, Last time.Time // of the Events that say so
	Begun       bool      // at First, the pod was scheduled to the node
}

// NewGraph returns an empty Graph.
func NewGraph() *Graph {
	return &Graph{ids: map[uint64]int32{}, seed: maphash.MakeSeed(), uids: map[uid]int32{}, strings: map[string]int32{}, limit: maxObjects}
}

// Full reports whether there were more objects than a Graph holds: nothing is known about those.
func (g *Graph) Full() bool { return g.full }

// Know adds an object without any Event about it.
func (g *Graph) Know(o Object) { g.id(o) }

// Known reports whether an Event is about the object or names it.
func (g *Graph) Known(o Object) bool { return g.find(o) != nil }

// All returns the known objects in the order in which they became known, including those that become
// known meanwhile.
func (g *Graph) All() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for i := 0; i < len(g.objects) && yield(g.object(int32(i))); i++ {
		}
	}
}

func (g *Graph) object(id int32) Object {
	n := &g.objects[id]
	return Object{Kind: g.shared[n.kind], Namespace: g.shared[n.namespace], Name: n.name}
}

// slot returns the key of an object in ids, and whether it is there.
func (g *Graph) slot(o Object) (key uint64, known bool) {
	for key = maphash.Comparable(g.seed, o); ; key++ {
		id, ok := g.ids[key]
		if !ok || g.object(id) == o {
			return key, ok
		}
	}
}

// find returns the node of an object, nil if it is not known.
func (g *Graph) find(o Object) *node {
	key, ok := g.slot(o)
	if !ok {
		return nil
	}
	return &g.objects[g.ids[key]]
}

// id returns the number of an object, -1 if it cannot be added.
func (g *Graph) id(o Object) int32 {
	key, ok := g.slot(o)
	if ok {
		return g.ids[key]
	}
	if o.Name == "" || o.Kind == "" || len(o.Name) > maxName || len(o.Kind) > maxName || len(o.Namespace) > maxName {
		return -1
	}
	if len(g.objects) >= g.limit {
		g.full = true
		return -1
	}
	id := int32(len(g.objects))
	g.objects = append(g.objects, node{
		name: strings.Clone(o.Name), // not a part of a line
		kind: g.share(o.Kind), namespace: g.share(o.Namespace), owner: -1, workload: -1,
	})
	g.ids[key] = id
	if len(o.Name) >= longName-randomLength && len(g.long) < maxLong {
		switch o.Kind {
		case "ReplicaSet", "Job", "DaemonSet", "ReplicationController":
			g.long = append(g.long, id)
		}
	}
	g.owned = nil
	return id
}

// share returns the number of a string that many objects share. There are as many as namespaces,
// nodes and kinds; hostile ones are bounded by the number of objects.
func (g *Graph) share(s string) int32 {
	if i, ok := g.strings[s]; ok {
		return i
	}
	s = strings.Clone(s)
	g.strings[s] = int32(len(g.shared))
	g.shared = append(g.shared, s)
	return g.strings[s]
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
		g.nameRelated(string(related.UID), g.id(New(related.Kind, related.Namespace, related.Name)))
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
	n := &g.objects[pod]
	if n.stays == nil {
		n.stays = new([]Stay)
	}
	for i := range *n.stays {
		if s := &(*n.stays)[i]; s.Node == name {
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
	if len(*n.stays) < maxStays {
		*n.stays = append(*n.stays, Stay{Node: g.shared[g.share(name)], First: at, Last: at, Begun: begun})
	}
}

// Owner returns the direct owner of an object.
func (g *Graph) Owner(o Object) (Object, Evidence, bool) {
	if n := g.find(o); n != nil {
		switch {
		case n.owner >= 0:
			return g.object(n.owner), Stated, true
		case n.workload >= 0:
			return g.object(n.workload), Recorded, true
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
		if n := g.find(o); n != nil && n.workload >= 0 {
			return g.object(n.workload), max(weakest, Recorded)
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
	ids := g.ownedIDs()[o]
	owned := make([]Object, len(ids))
	for i, id := range ids {
		owned[i] = g.object(id)
	}
	return owned
}

// Owns reports whether o is the direct owner of a known object.
func (g *Graph) Owns(o Object) bool { return len(g.ownedIDs()[o]) > 0 }

func (g *Graph) ownedIDs() map[Object][]int32 {
	if g.owned == nil {
		g.owned = map[Object][]int32{}
		for i := range g.objects {
			if owner, _, ok := g.Owner(g.object(int32(i))); ok {
				g.owned[owner] = append(g.owned[owner], int32(i))
			}
		}
	}
	return g.owned
}

// Stays returns the nodes on which a pod was seen, by the time it was first seen there.
func (g *Graph) Stays(o Object) []Stay {
	stays := slices.Clone(g.staysOf(o))
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
