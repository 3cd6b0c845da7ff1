package timeline

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/objects"
)

// Request describes the Events of a timeline.
type Request struct {
	// Open returns the Source of a Selection: a *query.Loki or a query.Files. It is called several
	// times.
	Open   func(*query.Selection) query.Source
	Parser format.Parser

	// Filter selects the object (For), the node, or the namespace that the timeline is about; empty
	// fields the cluster. Its other fields, and Node beside For, only narrow what is visited.
	Filter   query.Filter
	From, To time.Time

	// OwnedOnly omits owners, nodes, preemptors and gap records.
	OwnedOnly bool

	Progress *query.Progress // nil: none
}

// Relation is why an object is part of a timeline.
type Relation uint8

const (
	Unrelated Relation = iota // no part of it
	Selected                  // by --for, or in the namespace, on the node or in the cluster asked for
	Owned                     // by the selected object, directly or not
	Owner                     // of the selected object, directly or not
	Related                   // by its name, as a HorizontalPodAutoscaler is to a Deployment
	OnNode                    // a node of the pods
	Preemptor                 // preempted a pod, or owns the pod that did
	Victim                    // was preempted by a pod
	InGap                     // a gap record is about it
)

var relations = [...]string{"", "selected", "owned", "owner", "related", "node", "preemptor", "victim", "gap"}

// String is the Relation as in the JSON of a timeline.
func (r Relation) String() string { return relations[r] }

// Gathered are the Events of a timeline.
type Gathered struct {
	Graph    *objects.Graph                // complete
	Relation func(objects.Object) Relation // why an object is here

	// Omissions say what is not here, and why. Each adds to them.
	Omissions []Omission

	Bytes    int64 // fetched from Loki
	Requests int   // to fetch them

	gatherer *gatherer
}

// Gather reads which objects belong to the request, and their Events. It reads everything once: an
// Event is kept in a temporary file, compressed, until Each visits it. Memory holds some 50 bytes for
// each Event and 300 for each object, within bounds that Omissions report.
//
// For an object these are its own Events and those of what it owns, of its owners and of what has its
// name; of the nodes of its pods while they were there; of the pods that preempted its pods, also in
// other namespaces, and of their owners; and the preemptions by its pods. For a namespace it is the
// same, without owners. For a node, its Events and those of the pods on it. Gap records are always
// part of it.
func Gather(ctx context.Context, r Request) (*Gathered, error) {
	g, err := newGatherer(r)
	if err != nil {
		return nil, err
	}
	defer r.Progress.Clear()
	steps := []func(context.Context) error{g.readScope, g.readOwned, g.readAround, g.readPreemptors}
	if r.OwnedOnly {
		steps = steps[:2]
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			g.spool.Close()
			return nil, err
		}
	}
	g.relate()
	return g.gathered(), nil
}

// Each visits the Events in their latest state, oldest first. It may be called once. An error of
// visit ends it and is returned.
func (g *Gathered) Each(ctx context.Context, visit func(*format.Record) error) error {
	return g.gatherer.each(ctx, g, visit)
}

// Close frees what Each did not visit.
func (g *Gathered) Close() { g.gatherer.spool.Close() }

const (
	// batchBytes is the length of a list of names or uids in one query: every server accepts URLs of
	// some 4 KiB.
	batchBytes = 2500

	// maxBatches is the number of such queries for each purpose.
	maxBatches = 64

	// maxNodes is the number of nodes whose Events are read.
	maxNodes = 1000

	// maxSpooled is the number of states that are kept on disk, in some 250 bytes each.
	maxSpooled = 1 << 21

	// maxPreemptions is the number of preemptions whose preemptors are looked up.
	maxPreemptions = 1 << 16

	// before and after bound the search for Events that name a preemptor: it waits for its node
	// for a while, and is bound to it soon after the preemption.
	before = time.Hour
	after  = 10 * time.Minute

	// began is how long before a preemption the owner of the preemptor is looked for: a Deployment that
	// was scaled, a Job that was created. In a longer range, of a preemptor's own Events only those of
	// its scheduling are read.
	began = 6 * time.Hour

	// nearby is how long before a pod came to a node, and after it ended, what happens to the node is
	// part of its story.
	nearby = 10 * time.Minute
)
