package router

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

const (
	// DefaultMaxStreams is half of the 5000 active streams that Loki allows a tenant by
	// default. The other half is for the streams of namespaces, which are not limited.
	DefaultMaxStreams = 2500

	maxReasonLength = 64
	forgetAfter     = time.Hour
)

// SinkLabels are the fields of an Event that are labels in a sink. Attributes are the names of
// those that LabelAttributes stands for.
type SinkLabels struct {
	Sink       string
	Fields     event.LabelSet
	Attributes []string
}

// cardinalityLimiter limits the cardinality of labels. For each set of label fields of a
// sink, it decides which fields keep the Event's own value. It is safe for concurrent use.
type cardinalityLimiter struct {
	mu   sync.Mutex // guards the fields below
	max  int
	sets []*setLimiter
}

// setLimiter limits the combinations of values of one set of fields. At most max
// combinations are in use at a time, and one more for each namespace. A combination is in
// use until an hour after its last record.
//
// If a record's combination is new and the limit is reached, the record keeps fewer of its
// values: namespace and reason, or the namespace alone. The last quarter of max is reserved
// for namespace and reason, so that a field with ever new values, such as a component, does
// not take the reason away from other records.
//
// It uses the time of the process, not of the records: the limit is about the streams that
// Loki holds open while they are written to, and a list can have the Events of a day.
type setLimiter struct {
	fields     event.LabelSet
	list       []event.Field // the same fields
	attributes []string      // of all its sinks
	sinks      []string
	lastUsed   map[string]*time.Time // by the key of a combination
	// noneBefore is a time before which no combination expires, so that a storm of new
	// ones does not scan all of them each time.
	noneBefore time.Time
	// lastRejected is when a combination was last rejected because of max.
	lastRejected time.Time
	key          []byte // of the current record
}

// setLabels replaces the sets of fields. Unchanged sets keep their combinations.
func (c *cardinalityLimiter) setLabels(max int, sinks []SinkLabels) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = max
	previous := c.sets
	c.sets = nil
	find := func(sets []*setLimiter, fields event.LabelSet) *setLimiter {
		if i := slices.IndexFunc(sets, func(s *setLimiter) bool { return s.fields == fields }); i >= 0 {
			return sets[i]
		}
		return nil
	}
	if len(sinks) == 0 { // records need a decision for sinks that are added later
		sinks = []SinkLabels{{Fields: event.DefaultLabels}}
	}
	for _, s := range sinks {
		set := find(c.sets, s.Fields)
		if set == nil && s.Fields != 0 && len(c.sets) < event.MaxLabelDecisions {
			if set = find(previous, s.Fields); set == nil {
				set = &setLimiter{fields: s.Fields, list: s.Fields.Fields(), lastUsed: map[string]*time.Time{}}
			}
			set.sinks, set.attributes = nil, nil
			c.sets = append(c.sets, set)
		}
		if set == nil {
			continue
		}
		if s.Sink != "" {
			set.sinks = append(set.sinks, s.Sink)
		}
		set.attributes = append(set.attributes, s.Attributes...)
		slices.Sort(set.attributes)
		set.attributes = slices.Compact(set.attributes)
	}
}

// decision is the decision about the labels of one record.
type decision struct {
	labels       event.LabelDecisions
	malformed    bool          // the reason is not CamelCase
	limited      bool          // a set had no free combination
	firstLimited []*setLimiter // the sets that rejected none in the hour before
}

// decide decides about the labels of a record. It allocates only for a new combination.
func (c *cardinalityLimiter) decide(now time.Time, r *event.Record) (d decision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, set := range c.sets {
		kept := set.fields
		if !set.use(now, r, kept) {
			// The reason of gap records is reserved for them.
			if kept&event.LabelReason != 0 && (!camelCase(r.Event.Reason) || r.ForgedGap()) {
				d.malformed = true
				kept &^= event.LabelReason
			}
			wanted := kept
			for _, kept = range []event.LabelSet{kept, kept & event.DefaultLabels, kept & event.LabelNamespace} {
				if set.admit(now, r, kept, c.max) {
					break
				}
			}
			if kept != wanted {
				d.limited = true
				if set.lastRejected.IsZero() || now.Sub(set.lastRejected) >= forgetAfter {
					d.firstLimited = append(d.firstLimited, set)
				}
				set.lastRejected = now
			}
		}
		d.labels[i] = event.LabelDecision{Set: set.fields, Kept: kept}
	}
	if d.labels == (event.LabelDecisions{{Set: event.DefaultLabels, Kept: event.DefaultLabels}}) {
		d.labels = event.LabelDecisions{} // the same, and takes no space
	}
	return d
}

// use reports whether the record's combination of the fields is in use, and renews it.
func (l *setLimiter) use(now time.Time, r *event.Record, fields event.LabelSet) bool {
	l.key = append(l.key[:0], byte(fields))
	add := func(value string) {
		l.key = binary.AppendUvarint(l.key, uint64(len(value)))
		l.key = append(l.key, value...)
	}
	for _, f := range l.list {
		if fields.Has(f) {
			add(r.Value(f))
		}
	}
	if fields&event.LabelAttributes != 0 {
		for _, name := range l.attributes {
			add(r.Attribute(name))
		}
	}
	last := l.lastUsed[string(l.key)]
	if last == nil {
		return false
	}
	*last = now
	return true
}

// admit reports whether the record's combination of the fields is in use, after adding it
// if the limit allows.
func (l *setLimiter) admit(now time.Time, r *event.Record, fields event.LabelSet, max int) bool {
	if fields&^event.LabelNamespace == 0 {
		return true // namespaces do not count
	}
	if l.use(now, r, fields) {
		return true
	}
	if fields&^event.DefaultLabels != 0 && l.fields&event.LabelReason != 0 {
		max -= max / 4
	}
	if len(l.lastUsed) >= max {
		l.expire(now)
		if len(l.lastUsed) >= max {
			return false
		}
	}
	last := now
	l.lastUsed[string(l.key)] = &last
	return true
}

// expire removes the combinations that are no longer in use.
func (l *setLimiter) expire(now time.Time) {
	if now.Before(l.noneBefore) {
		return
	}
	oldest := now
	for key, last := range l.lastUsed {
		switch {
		case now.Sub(*last) >= forgetAfter:
			delete(l.lastUsed, key)
		case last.Before(oldest):
			oldest = *last
		}
	}
	l.noneBefore = oldest.Add(forgetAfter)
}

// camelCase reports whether a reason is CamelCase, such as FailedScheduling. The API defines
// it as "a short, machine understandable string":
// https://github.com/kubernetes/api/blob/v0.37.2/core/v1/types.go (Event.Reason).
// The API server does not enforce it: some reporters use sentences, names and numbers.
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
