package audit

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// state is the latest of an Event, as the API server has it, and what was found
// of it.
type state struct {
	namespace, name string // of the Event
	uid             string
	version         string
	kind, object    string // what it is about
	eventReason     string
	eventType       string
	count           int32
	message         uint64 // hashed, as it should be stored

	at      time.Time // under which it should be stored
	written time.Time // by the API server's clock; zero: not known

	reason, detail string // why it need not be stored

	found    int        // how often
	timely   bool       // one of them has the right time
	first    storedCopy // the first of them
	repeated string     // how another differs from it
	altered  string     // what else one of them says
}

// storedCopy is an entry of a state.
type storedCopy struct {
	stream   string
	time     time.Time
	line     uint64 // hashed
	metadata uint64 // hashed
}

// newState reads an Event that was listed at a time, but for what depends on rules.
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
		s.object = s.name[:len(s.object)] // recorders name an Event after its object: one string in memory
	}
	s.at, s.written = storedUnder(e, clock)
	return s
}

// The time an Event is stored under is the one that its reporter gave, unless it
// is further than this from the API server's own clock.
const (
	aheadAtMost  = 2 * time.Minute
	behindAtMost = 30 * time.Minute
)

// storedUnder is the time under which a state is to be stored. It is what
// docs/design.md says of it, written down a second time. clock is when it was listed.
//
// written is when the API server wrote the state, as far as that is known.
func storedUnder(e *corev1.Event, clock time.Time) (at, written time.Time) {
	// What the reporter says: the first of these that is set.
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
	// What is below the resolution keeps states of one instant in order.
	version, _ := strconv.ParseUint(e.ResourceVersion, 10, 64)
	return at.Add(time.Duration(version % uint64(resolution))).UTC(), written
}

// writtenAt is when the API server wrote the state, in whole seconds: the newest
// time in managedFields. Without those, it is that of the creation for an Event
// that has not been written again, or whose own time cannot be true.
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

// newestWrite takes the time of the creation for one that is forged: still to come.
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

// plain leaves out what cannot be written as UTF-8, or stands for that.
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
