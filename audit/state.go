package audit

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// state is the latest state of an Event in the API server, with the results of the comparison.
type state struct {
	namespace, name string // of the Event
	uid             string
	version         string
	kind, object    string // of the involved object
	eventReason     string
	eventType       string
	count           int32
	message         uint64 // hash of the message that should be stored

	at      time.Time // under which it should be stored
	written time.Time // by the API server's clock; zero: unknown

	reason, detail string // if it need not be stored

	found    int        // number of entries
	timely   bool       // an entry has the right time
	first    storedCopy // the first entry
	repeated string     // difference of another entry
	altered  string     // fields of an entry that differ from the Event
}

// storedCopy is an entry of a state, for the comparison with others.
type storedCopy struct {
	stream   string
	time     time.Time
	line     uint64 // hashed
	metadata uint64 // hashed
}

// newState returns the state of an Event that was listed at clock, without the results of rules.
func newState(e *corev1.Event, clock time.Time, intern func(string) string) state {
	s := state{
		namespace:   intern(e.Namespace),
		name:        e.Name,
		uid:         string(e.UID),
		version:     e.ResourceVersion,
		kind:        intern(e.InvolvedObject.Kind),
		object:      e.InvolvedObject.Name,
		eventReason: intern(e.Reason),
		eventType:   intern(e.Type),
		count:       occurrences(e),
	}
	if strings.HasPrefix(s.name, s.object) {
		s.object = s.name[:len(s.object)] // share memory: recorders name an Event after its object
	}
	s.at, s.written = storedUnder(e, clock)
	return s
}

// An Event is stored under its reporter's time, unless that is further than this from the API
// server's clock.
const (
	aheadAtMost  = 2 * time.Minute
	behindAtMost = 30 * time.Minute
)

// storedUnder returns the time under which a state should be stored, and the time at which the API
// server wrote it, if known. It is a second implementation of the rule in docs/design.md. clock is
// the time of the list.
func storedUnder(e *corev1.Event, clock time.Time) (at, written time.Time) {
	// The reporter's time is the first of these that is set.
	candidates := []struct {
		time       time.Time
		resolution time.Duration
	}{
		{lastObserved(e), time.Microsecond},
		{e.LastTimestamp.Time, time.Second},
		{e.EventTime.Time, time.Microsecond},
		{e.FirstTimestamp.Time, time.Second},
		{newestWrite(e, clock), time.Second},
		{e.CreationTimestamp.Time, time.Second},
	}
	resolution := time.Second
	for _, c := range candidates {
		if !c.time.IsZero() {
			at, resolution = c.time.Truncate(c.resolution), c.resolution
			break
		}
	}
	written = writtenAt(e, at, clock)
	if at.IsZero() {
		return at, written
	}
	if server := written; !server.IsZero() && (at.Sub(server) > aheadAtMost || server.Sub(at) > behindAtMost) {
		at, resolution = server, time.Second
	}
	// The version, below the resolution, keeps states of equal times in order.
	version, _ := strconv.ParseUint(e.ResourceVersion, 10, 64)
	return at.Add(time.Duration(version % uint64(resolution))).UTC(), written
}

// writtenAt returns the time at which the API server wrote the state, in whole seconds: the newest
// time in managedFields. Without managedFields, it is the creation time if the Event was written
// once or its own time is in the future.
func writtenAt(e *corev1.Event, observed, clock time.Time) time.Time {
	at := newestWrite(e, clock)
	switch {
	case !at.IsZero() && at.Before(e.CreationTimestamp.Time):
		at = e.CreationTimestamp.Time
	case at.IsZero() && (e.Count <= 1 && e.Series == nil || observed.Unix() > clock.Add(aheadAtMost).Unix()):
		at = e.CreationTimestamp.Time
	}
	return at.Truncate(time.Second).UTC()
}

// newestWrite returns the newest time in managedFields; a forged one, in the future, counts as the
// creation time.
func newestWrite(e *corev1.Event, clock time.Time) (newest time.Time) {
	for _, f := range e.ManagedFields {
		if f.Time == nil {
			continue
		}
		at := f.Time.Time
		if at.Unix() > clock.Add(aheadAtMost).Unix() {
			at = e.CreationTimestamp.Time
		}
		if at.After(newest) {
			newest = at
		}
	}
	return newest
}

func lastObserved(e *corev1.Event) time.Time {
	if e.Series == nil {
		return time.Time{}
	}
	return e.Series.LastObservedTime.Time
}

func occurrences(e *corev1.Event) int32 {
	if e.Series != nil {
		return e.Series.Count
	}
	return e.Count
}

func component(e *corev1.Event) string {
	if e.Source.Component != "" {
		return e.Source.Component
	}
	return e.ReportingController
}

func node(e *corev1.Event) string {
	if e.InvolvedObject.Kind == "Node" {
		return e.InvolvedObject.Name
	}
	if e.Source.Host != "" {
		return e.Source.Host
	}
	if component(e) == "kubelet" {
		return e.ReportingInstance
	}
	return ""
}

// plain removes invalid UTF-8 and its replacement character.
func plain(s string) string {
	if utf8.ValidString(s) && !strings.ContainsRune(s, utf8.RuneError) {
		return s
	}
	return strings.Map(func(c rune) rune {
		if c == utf8.RuneError {
			return -1
		}
		return c
	}, s)
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
