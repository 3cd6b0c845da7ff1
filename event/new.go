package event

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// How far the time a reporter gave may lie from the API server's own time of
// the write. Recorders send an Event within seconds, and what is new of a series
// within 30 minutes:
// https://github.com/kubernetes/client-go/blob/master/tools/events/event_broadcaster.go
// By default Loki refuses what lies more than 10 minutes in the future, or more
// than an hour before the newest entry of its stream.
const (
	maxAhead  = 2 * time.Minute
	maxBehind = 30 * time.Minute
)

// NewAt returns the record of one state as it was read from an API server, whose clock
// showed the given time then. It takes e over: what only says how e was read or stored (managedFields, kind and
// apiVersion) is dropped, so that the same state gives the same record however
// it was learned.
//
// Time is the time the reporter gave. Where that is more than 2 minutes after
// or 30 minutes before the API server wrote the state, Time is the server's and
// ObservedTime the reporter's. It is zero only if the Event has no time at all.
//
// When the API server wrote the state is known from managedFields, which whoever may
// write the Event can forge. Times in them of more than 2 minutes after clock are
// ignored, the time of creation, which cannot be forged, stands in for them, and
// Position.Time is never after clock. So only the record of a state with a forged time
// depends on clock.
//
// Annotations and labels that begin with "hindsight/" are Hindsight's own, and are
// removed: the cluster has no say in what they mean to readers.
//
// Source and the rest of Position are for the caller to fill in.
func NewAt(e *corev1.Event, clock time.Time) Record {
	own := func(key, _ string) bool { return strings.HasPrefix(key, ownPrefix) }
	maps.DeleteFunc(e.Annotations, own)
	maps.DeleteFunc(e.Labels, own)
	return newRecord(e, true, clock)
}

// New is NewAt without a clock: no time is taken for forged.
func New(e *corev1.Event) Record { return NewAt(e, time.Time{}) }

// NewReplayed is New for an Event that was stored somewhere else meanwhile: its
// time is taken as it is.
func NewReplayed(e *corev1.Event) Record {
	return newRecord(e, false, time.Time{})
}

// NewFromLine is NewReplayed for an Event that was read from a line of Hindsight
// which gives the record's time beside it, zero if it does not. What New made of
// the Event comes back: Time, ObservedTime and Gap.
func NewFromLine(e *corev1.Event, filed time.Time) Record {
	r := NewReplayed(e)
	if e.Reason == GapReason && e.Annotations[ownPrefix+gapCause] != "" {
		r.Gap = true
		r.Time, _ = observedTime(e) // NewGap adds nothing to it
	}
	if !filed.IsZero() {
		r.Time, r.ObservedTime = filed.UTC(), reportedTime(e)
	}
	return r
}

// reportedTime is observedTime without the times that the API server gave.
func reportedTime(e *corev1.Event) time.Time {
	at, _ := observedTime(&corev1.Event{
		Series: e.Series, LastTimestamp: e.LastTimestamp, EventTime: e.EventTime, FirstTimestamp: e.FirstTimestamp,
	})
	return at
}

func newRecord(e *corev1.Event, bounded bool, clock time.Time) Record {
	e.ManagedFields = possible(e, clock)
	written := writeTime(e)
	at, resolution := observedTime(e)
	if written.IsZero() && !PlausibleTime(at.Unix(), clock) {
		written = seconds(e.CreationTimestamp) // nothing else is known of the write
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

// PlausibleTime reports whether the API server can have written a time, in seconds since
// 1970, by the time its clock shows clock: it is at most 2 minutes later, which is more
// than the clocks of several API servers differ by. A zero clock makes every time
// possible.
func PlausibleTime(written int64, clock time.Time) bool {
	return clock.IsZero() || written <= clock.Add(maxAhead).Unix()
}

// ClampTime returns the earlier of a time and a clock in whole seconds, in UTC. A zero
// clock, or time, leaves the time as it is.
func ClampTime(t, clock time.Time) time.Time {
	if !clock.IsZero() && t.After(clock) {
		t = clock
	}
	return seconds(metav1.Time{Time: t})
}

// possible returns managedFields with the time of creation in place of impossible ones.
func possible(e *corev1.Event, clock time.Time) []metav1.ManagedFieldsEntry {
	forged := func(m metav1.ManagedFieldsEntry) bool { return m.Time != nil && !PlausibleTime(m.Time.Unix(), clock) }
	if !slices.ContainsFunc(e.ManagedFields, forged) {
		return e.ManagedFields
	}
	return append(slices.DeleteFunc(e.ManagedFields, forged), metav1.ManagedFieldsEntry{Time: &e.CreationTimestamp})
}

// version is zero if the resourceVersion is not a number: that of an Event
// which never was in an API server.
func version(e *corev1.Event) uint64 {
	v, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// writeTime returns the API server's own time of the write that made this
// state, zero if it cannot be told. The server stamps managedFields at every
// write that changes anything; the time of creation is that of the write only
// while nothing has been added.
func writeTime(e *corev1.Event) time.Time {
	if t := managedTime(e); !t.IsZero() {
		if created := seconds(e.CreationTimestamp); t.Before(created) {
			return created // nothing is written before it is created
		}
		return t
	}
	if repeated(e) {
		return time.Time{}
	}
	return seconds(e.CreationTimestamp)
}

// managedTime returns the newest time in managedFields, zero if there is none.
func managedTime(e *corev1.Event) time.Time {
	var newest time.Time
	for i := range e.ManagedFields {
		t := e.ManagedFields[i].Time
		if t != nil && t.After(newest) {
			newest = t.Time
		}
	}
	return seconds(metav1.Time{Time: newest})
}

// observedTime returns when the newest occurrence was seen, in UTC, and the
// resolution of the field that says so. It is the field's resolution that
// counts, not the digits it happens to have.
func observedTime(e *corev1.Event) (time.Time, time.Duration) {
	switch {
	case e.Series != nil && !e.Series.LastObservedTime.IsZero():
		return micros(e.Series.LastObservedTime), time.Microsecond
	case !e.LastTimestamp.IsZero():
		return seconds(e.LastTimestamp), time.Second
	case !e.EventTime.IsZero():
		return micros(e.EventTime), time.Microsecond
	case !e.FirstTimestamp.IsZero():
		return seconds(e.FirstTimestamp), time.Second
	}
	created := seconds(e.CreationTimestamp)
	if t := managedTime(e); t.After(created) { // nothing is written before it is created
		return t, time.Second
	}
	return created, time.Second
}

// firstTime returns when the first occurrence was seen, zero if the Event does
// not say.
func firstTime(e *corev1.Event) time.Time {
	if !e.FirstTimestamp.IsZero() {
		return seconds(e.FirstTimestamp)
	}
	return micros(e.EventTime)
}

// seconds is t as protobuf and JSON both carry it.
func seconds(t metav1.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.Unix(t.Unix(), 0).UTC()
}

// micros is t as protobuf and JSON both carry it.
func micros(t metav1.MicroTime) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond).UTC()
}

// HasEventTime reports whether Time can be read from the Event alone.
func (r *Record) HasEventTime() bool {
	at, resolution := observedTime(r.Event)
	return at.Equal(r.Time.Truncate(resolution))
}

// FirstTime returns when the first occurrence was seen, zero if that is not known.
func (r *Record) FirstTime() time.Time { return firstTime(r.Event) }

// Repeated reports whether the Event stands for more than one occurrence.
func (r *Record) Repeated() bool { return repeated(r.Event) }

// Count returns the number of occurrences that the Event stands for, zero if its
// reporter does not count.
func (r *Record) Count() int32 { return count(r.Event) }

func repeated(e *corev1.Event) bool {
	return e.Count > 1 || e.Series != nil
}
