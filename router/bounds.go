package router

import (
	"strings"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

const (
	// DefaultMaxStreams leaves room, in the 5000 active streams that Loki allows
	// a tenant by default, for as many namespaces again.
	DefaultMaxStreams = 2500

	maxReasonLength = 64
	forgetAfter     = time.Hour
)

// bounds keeps the label "reason" from having any number of values, whatever
// reasons the reporters come up with: at most max pairs of a namespace and a
// reason are in use at a time, and one pair more for each namespace, with
// event.Other. A pair is in use until an hour after its last record.
//
// The clock is the process's, not the records': what has to be few is the
// streams a server holds open while we write to them, and a whole day of Events
// may be read in a second.
type bounds struct {
	max int

	mu       sync.Mutex // guards the fields below
	lastUsed map[stream]*time.Time
	// noneBefore is a time before which no pair can be forgotten, so that a
	// storm of new reasons does not go through all pairs each time.
	noneBefore time.Time
}

type stream struct{ namespace, reason string }

// outcome says how a label came about.
type outcome int

const (
	own       outcome = iota // the Event's own reason
	malformed                // it does not look like a reason
	tooMany                  // all pairs are in use
)

func newBounds(max int) *bounds {
	return &bounds{max: max, lastUsed: map[stream]*time.Time{}}
}

// label returns the value of the label "reason" for an Event taken in now. It
// may be called from several goroutines, and allocates only for a new pair.
func (b *bounds) label(now time.Time, namespace, reason string) (string, outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.lastUsed[stream{namespace, reason}]; last != nil {
		*last = now
		return reason, own
	}
	if !camelCase(reason) {
		return event.Other, malformed
	}
	if len(b.lastUsed) >= b.max {
		b.forget(now)
		if len(b.lastUsed) >= b.max {
			return event.Other, tooMany
		}
	}
	last := now
	// Copies, because the Event's own are parts of all its text.
	b.lastUsed[stream{strings.Clone(namespace), strings.Clone(reason)}] = &last
	return reason, own
}

// forget lets go of the pairs that are no longer in use.
func (b *bounds) forget(now time.Time) {
	if now.Before(b.noneBefore) {
		return
	}
	oldest := now
	for key, last := range b.lastUsed {
		switch {
		case now.Sub(*last) >= forgetAfter:
			delete(b.lastUsed, key)
		case last.Before(oldest):
			oldest = *last
		}
	}
	b.noneBefore = oldest.Add(forgetAfter)
}

// camelCase reports whether a reason is what the API asks for, "a short,
// machine understandable string" such as FailedScheduling:
// https://github.com/kubernetes/api/blob/v0.37.2/core/v1/types.go (Event.Reason).
// The API server does not insist, and there are reporters whose reasons are
// sentences, or hold names and numbers.
func camelCase(reason string) bool {
	if reason == "" || len(reason) > maxReasonLength || reason[0] < 'A' || reason[0] > 'Z' {
		return false
	}
	for i := range len(reason) {
		c := reason[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
