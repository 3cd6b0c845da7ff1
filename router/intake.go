package router

import (
	"cmp"
	"log/slog"
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

	// MaxStreams bounds, for each set of fields that are labels in a sink, the
	// combinations of their values; default DefaultMaxStreams.
	MaxStreams int

	// Labels are those of all sinks that have any.
	Labels []SinkLabels

	Registerer prometheus.Registerer // may be nil
	Logger     *slog.Logger          // may be nil
}

// Intake decides, before a record is journaled, everything that depends on more
// than the record: whether it is dropped, what is redacted, and which labels have
// its own values. It is safe for concurrent use.
type Intake struct {
	drop    Selectors
	redact  Redactions
	limiter cardinalityLimiter
	metrics *metrics
	log     *slog.Logger
}

// NewIntake returns an intake that has seen nothing yet.
func NewIntake(o IntakeOptions) *Intake {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	in := &Intake{metrics: newMetrics(o.Registerer), log: log}
	in.SetRules(o.Drop, o.Redact, o.MaxStreams, o.Labels)
	return in
}

// SetRules replaces the rules; the streams in use stay known. It must not be
// called during Take.
func (in *Intake) SetRules(drop Selectors, redact Redactions, maxStreams int, labels []SinkLabels) {
	in.drop, in.redact = drop, redact
	in.limiter.setLabels(cmp.Or(maxStreams, DefaultMaxStreams), labels)
}

// Apply applies the rules to records that will be journaled as one group, in
// their order, and returns those to journal. It owns the records and their
// Events: like append's, the result takes the place of the argument.
//
// A dropped record only moves the position. Of records that do nothing else and
// follow one another, the last is left; none is where a record with an Event of
// the same source comes next, which moves the position too. Records of gaps pass
// untouched.
func (in *Intake) Apply(records []event.Record) []event.Record {
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
		*r = event.Record{Source: r.Source, Position: r.Position, OnlySink: r.OnlySink}
		return
	}
	if in.redact.apply(r.Event) {
		in.metrics.redacted.Inc()
	}
	d := in.limiter.decide(now, r)
	r.Decisions = d.labels
	if d.malformed {
		in.metrics.malformed.Inc()
	}
	if d.tooMany {
		in.metrics.tooMany.Inc()
	}
	for _, set := range d.begins {
		for _, sink := range set.sinks {
			in.log.Warn("max_streams is reached; labels of new streams have the value other until fewer streams are in use",
				"sink", sink, "fields", set.fields, "max_streams", in.limiter.max, "namespace", r.Event.Namespace, "reason", r.Event.Reason,
				"hint", "remove the label with most values from the sink, or raise max_streams if Loki's limit of streams allows it")
		}
	}
}

// supersedes reports whether r, coming right after last, makes it superfluous. A
// gap's record does not: its position is where the gap begins.
func supersedes(r, last *event.Record) bool {
	return last.PositionOnly() && !r.Gap && r.Source == last.Source && r.OnlySink == last.OnlySink
}
