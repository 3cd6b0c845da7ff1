package timeline

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/objects"
)

// Request says what a timeline is about.
type Request struct {
	// Open returns the Source of a Selection: a *query.Loki or a query.Files. It is called several
	// times.
	Open   func(*query.Selection) query.Source
	Parser format.Parser

	// Filter selects the object (For), the node, or the namespace that the timeline is about; empty
	// fields the cluster. Its other fields, and Node beside For, only narrow what is visited.
	Filter   query.Filter
	From, To time.Time

	Progress *query.Progress // nil: none
	// Warn shows a warning to the user; nil: nobody.
	Warn func(message string)
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

	each func(ctx context.Context, visit func(*format.Record) error) error
}

// Each visits the Events in their latest state, oldest first. It may be called once. An error of
// visit ends it and is returned.
func (g *Gathered) Each(ctx context.Context, visit func(*format.Record) error) error {
	return g.each(ctx, visit)
}

// Close frees what Each did not visit.
func (g *Gathered) Close() {}
