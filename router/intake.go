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
	// Drop selects Events that no sink receives. It matches Events before redaction.
	Drop Selectors

	// Redact is applied to the messages and annotations of all other Events.
	Redact Redactions

	// Levels set the level of all other Events. They match Events before redaction.
	Levels Levels

	// MaxStreams limits the combinations of label values, for each set of fields that
	// are labels in a sink; default DefaultMaxStreams.
	MaxStreams int

	// Labels are the labels of all sinks that have any.
	Labels []SinkLabels

	Registerer prometheus.Registerer // may be nil
	Logger     *slog.Logger          // may be nil
}

// Intake makes the decisions about a record that are stored in the journal: whether it is
// dropped, what is redacted, its level, and which labels have its own values. It is safe for
// concurrent use.
type Intake struct {
	drop    Selectors
	redact  Redactions
	levels  Levels
	limiter cardinalityLimiter
	metrics *metrics
	log     *slog.Logger
}

// NewIntake returns an intake.
func NewIntake(o IntakeOptions) *Intake {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	in := &Intake{metrics: newMetrics(o.Registerer), log: log}
	in.SetRules(o.Drop, o.Redact, o.Levels, o.MaxStreams, o.Labels)
	return in
}

// SetRules replaces the rules. It keeps the streams in use. It must not be called during
// Apply.
func (in *Intake) SetRules(drop Selectors, redact Redactions, levels Levels, maxStreams int, labels []SinkLabels) {
	in.drop, in.redact, in.levels = drop, redact, levels
	in.limiter.setLabels(cmp.Or(maxStreams, DefaultMaxStreams), labels)
}

// Apply applies the rules to records that are journaled as one group, in their order, and
// returns the records to journal. It owns the records and their Events, and reuses the
// slice like append.
//
// A dropped record only moves the position. Of consecutive records that only move the
// position, the last remains, or none if a record with an Event of the same source
// follows. Gap records pass unchanged.
func (in *Intake) Apply(records []event.Record) []event.Record {
	now := time.Now()
	kept := records[:0]
	for i := range records {
		r := &records[i]
		in.apply(now, r)
		if n := len(kept); n > 0 && supersedes(r, &kept[n-1]) {
			kept[n-1] = *r
		} else {
			kept = append(kept, *r)
		}
	}
	clear(records[len(kept):]) // releases their Events
	return kept
}

func (in *Intake) apply(now time.Time, r *event.Record) {
	if r.PositionOnly() || r.Gap {
		return
	}
	if in.drop.Any(r) {
		in.metrics.dropped.Inc()
		*r = event.Record{Source: r.Source, Position: r.Position, OnlySink: r.OnlySink}
		return
	}
	r.Level = in.levels.of(r)
	if in.redact.apply(r.Event) {
		in.metrics.redacted.Inc()
	}
	d := in.limiter.decide(now, r)
	r.Decisions = d.labels
	if d.malformed {
		in.metrics.malformed.Inc()
	}
	if d.limited {
		in.metrics.limited.Inc()
	}
	for _, set := range d.firstLimited {
		for _, sink := range set.sinks {
			in.log.Warn("max_streams is reached; labels of new streams are set to other until fewer streams are in use",
				"sink", sink, "fields", set.fields, "max_streams", in.limiter.max, "namespace", r.Event.Namespace, "reason", r.Event.Reason,
				"hint", "remove the label with most values from the sink, or raise max_streams if Loki's stream limit allows it")
		}
	}
}

// supersedes reports whether last is superfluous because r follows it. A gap record does
// not supersede, because its position is the start of the gap.
func supersedes(r, last *event.Record) bool {
	return last.PositionOnly() && !r.Gap && r.Source == last.Source && r.OnlySink == last.OnlySink
}
