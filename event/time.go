package event

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of a reporter's time, relative to the API server's time of the write. Recorders
// send an Event within seconds, and updates of a series within 30 minutes:
// https://github.com/kubernetes/client-go/blob/master/tools/events/event_broadcaster.go
// By default Loki rejects entries more than 10 minutes in the future, or more than an
// hour older than the newest entry of the stream.
const (
	maxAhead  = 2 * time.Minute
	maxBehind = 30 * time.Minute
)

// reportedTime is observedTime without the API server's times.
func reportedTime(e *corev1.Event) time.Time {
	at, _ := observedTime(&corev1.Event{
		Series: e.Series, LastTimestamp: e.LastTimestamp, EventTime: e.EventTime, FirstTimestamp: e.FirstTimestamp,
	})
	return at
}

// PlausibleTime reports whether a time of a write, in seconds since 1970, is at most 2
// minutes after the API server's clock. The clocks of several API servers differ by less.
// With a zero clock every time is plausible.
func PlausibleTime(written int64, clock time.Time) bool {
	return clock.IsZero() || written <= clock.Add(maxAhead).Unix()
}

// ClampTime returns the earlier of t and clock in whole seconds, in UTC. A zero clock is
// ignored.
func ClampTime(t, clock time.Time) time.Time {
	if !clock.IsZero() && t.After(clock) {
		t = clock
	}
	return seconds(metav1.Time{Time: t})
}

// plausibleFields returns managedFields with the creation time in place of times that are
// not plausible.
func plausibleFields(e *corev1.Event, clock time.Time) []metav1.ManagedFieldsEntry {
	forged := func(m metav1.ManagedFieldsEntry) bool { return m.Time != nil && !PlausibleTime(m.Time.Unix(), clock) }
	if !slices.ContainsFunc(e.ManagedFields, forged) {
		return e.ManagedFields
	}
	return append(slices.DeleteFunc(e.ManagedFields, forged), metav1.ManagedFieldsEntry{Time: &e.CreationTimestamp})
}

// version is zero if the resourceVersion is not a number, as in an Event that was never
// in an API server.
func version(e *corev1.Event) uint64 {
	v, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// writeTime returns the API server's time of the write that made this state, zero if it
// is unknown. The server stamps managedFields at every write that changes the Event. The
// creation time is the time of the write only in the first state.
func writeTime(e *corev1.Event) time.Time {
	if t := managedTime(e); !t.IsZero() {
		if created := seconds(e.CreationTimestamp); t.Before(created) {
			return created // no write precedes the creation
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

// observedTime returns the time of the newest occurrence in UTC, and the resolution of
// the field that has it, however many digits its value has.
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
	if t := managedTime(e); t.After(created) { // no write precedes the creation
		return t, time.Second
	}
	return created, time.Second
}

// seconds is t in the resolution of a Time in both protobuf and JSON.
func seconds(t metav1.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.Unix(t.Unix(), 0).UTC()
}

// micros is t in the resolution of a MicroTime in both protobuf and JSON.
func micros(t metav1.MicroTime) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond).UTC()
}
