package router

import (
	"encoding/binary"
	"slices"
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

// SinkLabels are the fields of an Event that are labels in a sink.
type SinkLabels struct {
	Sink   string
	Fields event.LabelSet
}

// cardinalityLimiter limits the cardinality of labels. For each set of fields that are labels in a
// sink, it decides which fields keep the Event's own value. It is safe for concurrent
// use.
type cardinalityLimiter struct {
	mu   sync.Mutex // guards the fields below
	max  int
	sets []*limiter
}

// limiter limits the combinations of values of one set of fields. At most max
// combinations are in use at a time, and one more for each namespace. A combination is
// in use until an hour after its last record.
//
// If a record's combination is new and the limit is reached, the record keeps fewer of
// its values: namespace and reason, or the namespace alone. The last quarter of max is
// reserved for namespace and reason, so that a field with a new value each time, such
// as a component, does not take the reason away from other records.
//
// Times are those of the process, not of the records: the bound is about the streams
// that a server holds open while we write to them, and a whole day of Events may be
// read in a second.
type limiter struct {
	fields   event.LabelSet
	list     []event.Field // the same fields
	sinks    []string
	lastUsed map[string]*time.Time // by the key of a combination
	// noneBefore is a time before which no combination can be forgotten, so that a
	// storm of new ones does not scan all of them each time.
	noneBefore time.Time
	// lastRefused is when a combination was last refused because of max.
	lastRefused time.Time
	key         []byte // of the current record
}

// setLabels replaces the sets of fields. Sets that stay keep their combinations in
// use.
func (b *cardinalityLimiter) setLabels(max int, sinks []SinkLabels) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.max = max
	before := b.sets
	b.sets = nil
	of := func(sets []*limiter, fields event.LabelSet) *limiter {
		if i := slices.IndexFunc(sets, func(s *limiter) bool { return s.fields == fields }); i >= 0 {
			return sets[i]
		}
		return nil
	}
	if len(sinks) == 0 { // so that a sink that is added later finds a decision
		sinks = []SinkLabels{{Fields: event.DefaultLabels}}
	}
	for _, s := range sinks {
		set := of(b.sets, s.Fields)
		if set == nil && s.Fields != 0 && len(b.sets) < event.MaxLabelDecisions {
			if set = of(before, s.Fields); set == nil {
				set = &limiter{fields: s.Fields, list: s.Fields.Fields(), lastUsed: map[string]*time.Time{}}
			}
			set.sinks = nil
			b.sets = append(b.sets, set)
		}
		if set != nil && s.Sink != "" {
			set.sinks = append(set.sinks, s.Sink)
		}
	}
}

// decision is the decision of bounds about a record.
type decision struct {
	labels    event.LabelDecisions
	malformed bool       // the reason does not look like one
	tooMany   bool       // some set has no free combination
	begins    []*limiter // the sets of which this is so for the first time in an hour
}

// decide makes the decision about a record that the intake takes in now. It allocates
// only for a new combination.
func (b *cardinalityLimiter) decide(now time.Time, r *event.Record) (d decision) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, set := range b.sets {
		kept := set.fields
		if !set.use(now, r, kept) {
			// The reason of gap records is reserved for our own.
			if kept&event.LabelReason != 0 && (!camelCase(r.Event.Reason) || r.ForgedGap()) {
				d.malformed = true
				kept &^= event.LabelReason
			}
			wanted := kept
			for _, kept = range []event.LabelSet{kept, kept & event.DefaultLabels, kept & event.LabelNamespace} {
				if set.admit(now, r, kept, b.max) {
					break
				}
			}
			if kept != wanted {
				d.tooMany = true
				if set.lastRefused.IsZero() || now.Sub(set.lastRefused) >= forgetAfter {
					d.begins = append(d.begins, set)
				}
				set.lastRefused = now
			}
		}
		d.labels[i] = event.LabelDecision{Set: set.fields, Kept: kept}
	}
	if d.labels == (event.LabelDecisions{{Set: event.DefaultLabels, Kept: event.DefaultLabels}}) {
		d.labels = event.LabelDecisions{} // which means the same and takes no space
	}
	return d
}

// use reports whether the record's combination of the fields is in use. If so, it
// extends the use.
func (b *limiter) use(now time.Time, r *event.Record, fields event.LabelSet) bool {
	b.key = append(b.key[:0], byte(fields))
	for _, f := range b.list {
		if fields.Has(f) {
			value := r.Value(f)
			b.key = binary.AppendUvarint(b.key, uint64(len(value)))
			b.key = append(b.key, value...)
		}
	}
	last := b.lastUsed[string(b.key)]
	if last == nil {
		return false
	}
	*last = now
	return true
}

// admit reports whether the record's combination of the fields is in use, after adding
// it if the limit allows.
func (b *limiter) admit(now time.Time, r *event.Record, fields event.LabelSet, max int) bool {
	if fields&^event.LabelNamespace == 0 {
		return true // namespaces do not count
	}
	if b.use(now, r, fields) {
		return true
	}
	if fields&^event.DefaultLabels != 0 && b.fields&event.LabelReason != 0 {
		max -= max / 4
	}
	if len(b.lastUsed) >= max {
		b.forget(now)
		if len(b.lastUsed) >= max {
			return false
		}
	}
	last := now
	b.lastUsed[string(b.key)] = &last
	return true
}

// forget removes the combinations that are no longer in use.
func (b *limiter) forget(now time.Time) {
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

// camelCase reports whether a reason has the form that the API asks for, "a short,
// machine understandable string" such as FailedScheduling:
// https://github.com/kubernetes/api/blob/v0.37.2/core/v1/types.go (Event.Reason).
// The API server does not enforce it: some reporters have sentences as reasons, or
// reasons with names and numbers in them.
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
