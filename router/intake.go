package router

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
)

// IntakeOptions are the rules of an Intake.
type IntakeOptions struct {
	// Drop selects Events that no sink is to see. It looks at them as they
	// came, before anything is redacted.
	Drop Selectors

	// Redact is applied to the messages and annotations of all others.
	Redact Redactions

	// MaxStreams bounds the pairs of a namespace and a reason that become
	// labels; default DefaultMaxStreams.
	MaxStreams int

	Registerer prometheus.Registerer // may be nil
	Logger     *slog.Logger          // may be nil
}

// Intake decides, before a record is journaled, everything that depends on more
// than the record: whether it is dropped, what is redacted, and the value of its
// label "reason". It is safe for concurrent use.
type Intake struct {
	drop    Selectors
	redact  Redactions
	bounds  *bounds
	metrics *metrics
	log     *slog.Logger

	mu          sync.Mutex // guards lastRefused
	lastRefused time.Time  // when a reason last met with MaxStreams
}

// NewIntake returns an intake that has seen nothing yet.
func NewIntake(o IntakeOptions) *Intake {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Intake{
		drop:    o.Drop,
		redact:  o.Redact,
		bounds:  newBounds(cmp.Or(o.MaxStreams, DefaultMaxStreams)),
		metrics: newMetrics(o.Registerer),
		log:     log,
	}
}

// SetRules replaces the rules; the streams in use stay known. It must not be
// called during Take.
func (in *Intake) SetRules(drop Selectors, redact Redactions, maxStreams int) {
	in.drop, in.redact = drop, redact
	in.bounds.max = cmp.Or(maxStreams, DefaultMaxStreams)
}

// Take applies the rules to records that will be journaled as one group, in
// their order, and returns those to journal. It owns the records and their
// Events: like append's, the result takes the place of the argument.
//
// A dropped record only moves the position. Of records that do nothing else and
// follow one another, the last is left; none is where a record with an Event of
// the same source comes next, which moves the position too. Records of gaps pass
// untouched.
func (in *Intake) Take(records []event.Record) []event.Record {
	now := time.Now()
	kept := records[:0]
	for i := range records {
		r := &records[i]
		in.take(now, r)
		if n := len(kept); n > 0 && supersedes(r, &kept[n-1]) {
			kept[n-1] = *r
		} else {
			kept = append(kept, *r)
		}
	}
	clear(records[len(kept):]) // lets go of their Events
	return kept
}

func (in *Intake) take(now time.Time, r *event.Record) {
	if r.PositionOnly() || r.Gap {
		return
	}
	if in.drop.Any(r) {
		in.metrics.dropped.Inc()
		*r = event.Record{Source: r.Source, Position: r.Position, To: r.To}
		return
	}
	if in.redact.apply(r.Event) {
		in.metrics.redacted.Inc()
	}
	label, outcome := in.bounds.label(now, r.Event.Namespace, r.Event.Reason)
	r.ReasonLabel = label
	switch outcome {
	case malformed:
		in.metrics.malformed.Inc()
	case tooMany:
		in.metrics.tooMany.Inc()
		in.refused(now, r)
	}
}

// supersedes reports whether r, coming right after last, makes it superfluous. A
// gap's record does not: its position is where the gap begins.
func supersedes(r, last *event.Record) bool {
	return last.PositionOnly() && !r.Gap && r.Source == last.Source && r.To == last.To
}

// refused says once that there are too many streams, and again when that happens
// after an hour in which it did not.
func (in *Intake) refused(now time.Time, r *event.Record) {
	in.mu.Lock()
	again := !in.lastRefused.IsZero() && now.Sub(in.lastRefused) < forgetAfter
	in.lastRefused = now
	in.mu.Unlock()
	level := slog.LevelWarn
	if again {
		level = slog.LevelDebug
	}
	in.log.Log(context.Background(), level, "max_streams is reached: new pairs of a namespace and a reason get the label reason="+event.Other,
		"max_streams", in.bounds.max, "namespace", r.Event.Namespace, "reason", r.Event.Reason)
}
