// Package event is the record of one state of a Kubernetes Event: its time, identity,
// fields, labels, position and binary form. Package event/format writes and reads its
// lines.
//
// Everything here is a pure function of the Event and of the decisions made at intake.
// The same record always gives the same bytes, so that destinations can recognize a
// record that is sent again.
package event

import (
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Record is one state of one Event: one resourceVersion of one uid. New makes it, the
// watch adds Source and Position, the intake redacts it and adds Decisions. It does not
// change once it is journaled.
type Record struct {
	// Source is the namespace that was watched; empty: all namespaces.
	Source string

	// Position is how far Source has been read, including this record.
	Position Position

	// Event is the state itself, without managedFields. It is nil in a record that only
	// moves the position: a deletion, a dropped Event, the end of a list.
	Event *corev1.Event

	// Time is when the Event happened, and the timestamp of the stored line. Its
	// nanoseconds below the resolution of the Event come from the version, so that the
	// states of one second keep their order.
	Time time.Time

	// ObservedTime is the reporter's time if it was too far from the API server's clock
	// to be used. Time is then the API server's.
	ObservedTime time.Time

	// Attributes are values that the Event itself does not have, such as the workload and
	// labels of its object. They are sorted by name, without empty values, and decided at
	// intake.
	Attributes []Pair

	// Decisions are the intake's decisions about stream labels; see KeptLabels.
	Decisions LabelDecisions

	// Level is the intake's decision about the level; it does not change the type.
	Level Level

	// Gap marks a gap record, which Hindsight writes itself. It is neither dropped nor
	// filtered.
	Gap bool

	// OnlySink is the only sink that receives the record; empty: all.
	OnlySink string
}

// PositionOnly reports whether the record has no Event and only moves the position of
// its source.
func (r *Record) PositionOnly() bool { return r.Event == nil }

// New is NewAt without a clock: it takes no time for forged.
func New(e *corev1.Event) Record { return NewAt(e, time.Time{}) }

// NewAt returns the record of a state that was read when the API server's clock showed
// the given time. It owns e, and removes its managedFields, kind and apiVersion, so that
// the same state gives the same record however it was read.
//
// Time is the reporter's time. If that is more than 2 minutes after or 30 minutes before
// the API server's time of the write, Time is the API server's and ObservedTime the
// reporter's. Time is zero only if the Event has no time.
//
// The time of the write is read from managedFields, which every client that may write
// the Event can forge. Times there that are more than 2 minutes after clock are ignored
// in favor of the creation time, which clients cannot set, and Position.Time is never
// after clock. So only the record of a state with a forged time depends on clock.
//
// Annotations and labels that begin with "hindsight/" are reserved for Hindsight and are
// removed from the Event.
//
// The caller sets Source and the rest of Position.
func NewAt(e *corev1.Event, clock time.Time) Record {
	reserved := func(key, _ string) bool { return strings.HasPrefix(key, reservedPrefix) }
	maps.DeleteFunc(e.Annotations, reserved)
	maps.DeleteFunc(e.Labels, reserved)
	return newRecord(e, true, clock)
}

// NewReplayed is New for an Event from a file or another store: its time is used as it
// is.
func NewReplayed(e *corev1.Event) Record {
	return newRecord(e, false, time.Time{})
}

// NewFromLine is NewReplayed for an Event from a line of Hindsight. It restores Time,
// ObservedTime and Gap. recordTime is the record's time if the line has it apart from
// the Event, else zero.
func NewFromLine(e *corev1.Event, recordTime time.Time) Record {
	r := NewReplayed(e)
	if e.Reason == GapReason && e.Annotations[reservedPrefix+gapCause] != "" {
		r.Gap = true
		r.Time, _ = observedTime(e) // NewGap adds no nanoseconds
	}
	if !recordTime.IsZero() {
		r.Time, r.ObservedTime = recordTime.UTC(), reportedTime(e)
	}
	return r
}

func newRecord(e *corev1.Event, bounded bool, clock time.Time) Record {
	e.ManagedFields = plausibleFields(e, clock)
	written := writeTime(e)
	at, resolution := observedTime(e)
	if written.IsZero() && !PlausibleTime(at.Unix(), clock) {
		written = seconds(e.CreationTimestamp) // the only time that cannot be forged
	}
	r := Record{
		Event:    e,
		Position: Position{Version: version(e), Time: ClampTime(written, clock)},
	}
	if bounded && !written.IsZero() &&
		(at.After(written.Add(maxAhead)) || at.Before(written.Add(-maxBehind))) {
		r.ObservedTime = at
		at, resolution = written, time.Second
	}
	if !at.IsZero() {
		at = at.Add(time.Duration(r.Position.Version % uint64(resolution)))
	}
	r.Time = at
	e.TypeMeta = metav1.TypeMeta{}
	e.ManagedFields = nil
	return r
}

// HasEventTime reports whether Time can be computed from the Event alone.
func (r *Record) HasEventTime() bool {
	at, resolution := observedTime(r.Event)
	return at.Equal(r.Time.Truncate(resolution))
}

// FirstTime returns the time of the first occurrence, zero if it is unknown.
func (r *Record) FirstTime() time.Time {
	if !r.Event.FirstTimestamp.IsZero() {
		return seconds(r.Event.FirstTimestamp)
	}
	return micros(r.Event.EventTime)
}

// Repeated reports whether the Event counts more than one occurrence.
func (r *Record) Repeated() bool { return repeated(r.Event) }

func repeated(e *corev1.Event) bool {
	return e.Count > 1 || e.Series != nil
}

// Count returns the number of occurrences, zero if the reporter does not count:
// recorders of events.k8s.io only do from the second occurrence on.
func (r *Record) Count() int32 {
	if r.Event.Series != nil {
		return r.Event.Series.Count
	}
	return r.Event.Count
}
