// Package event is one Kubernetes Event as Hindsight sees it: a record of one
// state of it, with its time, its identity, its fields and its encodings.
//
// Everything here is a pure function of the Event and of what was decided when
// it was taken in. The same record always gives the same bytes, so that what
// has to be sent twice cannot be told from what was sent once.
package event

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Record is one state of one Event: what (uid, resourceVersion) was at one
// instant. It is made by New, completed by the watch (Source, Position) and by
// the intake (Decisions, redaction), and not changed after it was journaled.
type Record struct {
	// Source is the namespace whose watch brought the state; empty for the
	// watch of all namespaces.
	Source string

	// Position is how far Source has been taken once this record has.
	Position Position

	// Event is the state itself without managedFields. It is nil in a record
	// that does nothing but move the position: a deletion, a dropped Event, the
	// end of a list.
	Event *corev1.Event

	// Time is when it happened. Readers find the record under this time. Its
	// nanoseconds below the Event's own resolution come from the version, so
	// that the states of one second keep their order.
	Time time.Time

	// ObservedTime is the time the reporter gave, set only where it was too far
	// from the API server's clock to be used; then Time is the server's.
	ObservedTime time.Time

	// Decisions are the intake's, about the labels of streams; see Kept.
	Decisions LabelDecisions

	// Gap marks a record that Hindsight wrote itself, to say that states may
	// have been missed. It is neither dropped nor filtered.
	Gap bool

	// OnlySink names the only sink the record is meant for; empty: all.
	OnlySink string
}

// PositionOnly reports whether the record carries no Event and only moves the
// position of its source.
func (r *Record) PositionOnly() bool { return r.Event == nil }
