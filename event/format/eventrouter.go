package format

import (
	"encoding/json"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// appendEventRouter writes the line of heptio/eventrouter, with the Event as encoding/json
// encodes it. If the record's time cannot be computed from the Event, a standalone line
// also has "time", and it has "attributes" if the record has any.
func appendEventRouter(dst []byte, r *event.Record, standalone bool) []byte {
	dst = append(dst, eventRouterStart...)
	dst = append(dst, '"')
	dst = append(dst, verb(r)...)
	dst = append(dst, `","event":`...)
	if plain(&r.Event.ObjectMeta) {
		dst = appendEvent(dst, r.Event)
	} else {
		dst = appendMarshaled(dst, r.Event)
	}
	if standalone && !r.HasEventTime() {
		dst = append(dst, `,"time":"`...)
		dst = appendTime(dst, r.Time)
		dst = append(dst, '"')
	}
	if standalone && len(r.Attributes) > 0 {
		dst = append(dst, `,"attributes":{`...)
		for _, p := range r.Attributes {
			dst = appendMarshaledString(appendName(dst, p.Name), p.Value)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

const eventRouterStart = `{"verb":`

// verb returns ADDED for the first state of an Event, UPDATED for a later one. It depends on
// the Event alone, not on the type of the watch frame.
func verb(r *event.Record) string {
	if r.Repeated() {
		return "UPDATED"
	}
	return "ADDED"
}

// parseEventRouter parses a line that has the whole Event.
func (b *builder) parseEventRouter(text string) bool {
	var line struct {
		Verb  string
		Event *corev1.Event
		Time  time.Time

		Attributes map[string]string
	}
	if err := json.Unmarshal([]byte(text), &line); err != nil || line.Event == nil {
		return false
	}
	b.record.Record, b.record.WholeEvent = event.NewFromLine(line.Event, line.Time), true
	for name, value := range line.Attributes {
		b.setAttribute(name, value)
	}
	return true
}

// appendMarshaled encodes any Event with encoding/json.
func appendMarshaled(dst []byte, e *corev1.Event) []byte {
	body, err := json.Marshal(e)
	if err != nil {
		// Only managedFields can fail, and New removes them.
		body, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	// encoding/json does not escape DEL and bidirectional controls. They are in strings
	// only, so that they can be escaped here.
	return appendEscaped(dst, string(body))
}

// plain reports whether metadata has only the fields that every Event has.
func plain(m *metav1.ObjectMeta) bool {
	//lint:ignore SA1019 API servers before 1.20 wrote selfLink, and their Events can be replayed
	return m.GenerateName == "" && m.SelfLink == "" && m.Generation == 0 &&
		m.DeletionTimestamp == nil && m.DeletionGracePeriodSeconds == nil &&
		len(m.Labels) == 0 && len(m.Annotations) == 0 &&
		len(m.OwnerReferences) == 0 && len(m.Finalizers) == 0 && len(m.ManagedFields) == 0
}

// appendEvent encodes an Event with plain metadata like appendMarshaled, six times as
// fast. TestEventRouterLinesAreThoseOfEncodingJSON compares the two for each field, also
// for fields that a later version of the API adds.
func appendEvent(dst []byte, e *corev1.Event) []byte {
	dst = append(dst, '{')
	dst = appendMember(dst, "kind", e.Kind)
	dst = appendMember(dst, "apiVersion", e.APIVersion)

	dst = append(appendName(dst, "metadata"), '{')
	dst = appendMember(dst, "name", e.Name)
	dst = appendMember(dst, "namespace", e.Namespace)
	dst = appendMember(dst, "uid", string(e.UID))
	dst = appendMember(dst, "resourceVersion", e.ResourceVersion)
	if !e.CreationTimestamp.IsZero() {
		dst = appendTimeMember(dst, "creationTimestamp", e.CreationTimestamp.Time, time.RFC3339)
	}
	dst = append(dst, '}')

	dst = appendReference(dst, "involvedObject", &e.InvolvedObject)
	dst = appendMember(dst, "reason", e.Reason)
	dst = appendMember(dst, "message", e.Message)

	dst = append(appendName(dst, "source"), '{')
	dst = appendMember(dst, "component", e.Source.Component)
	dst = appendMember(dst, "host", e.Source.Host)
	dst = append(dst, '}')

	dst = appendTimeMember(dst, "firstTimestamp", e.FirstTimestamp.Time, time.RFC3339)
	dst = appendTimeMember(dst, "lastTimestamp", e.LastTimestamp.Time, time.RFC3339)
	dst = appendCount(dst, e.Count)
	dst = appendMember(dst, "type", e.Type)
	dst = appendTimeMember(dst, "eventTime", e.EventTime.Time, metav1.RFC3339Micro)
	if e.Series != nil {
		dst = append(appendName(dst, "series"), '{')
		dst = appendCount(dst, e.Series.Count)
		dst = appendTimeMember(dst, "lastObservedTime", e.Series.LastObservedTime.Time, metav1.RFC3339Micro)
		dst = append(dst, '}')
	}
	dst = appendMember(dst, "action", e.Action)
	if e.Related != nil {
		dst = appendReference(dst, "related", e.Related)
	}
	dst = appendMarshaledString(appendName(dst, "reportingComponent"), e.ReportingController)
	dst = appendMarshaledString(appendName(dst, "reportingInstance"), e.ReportingInstance)
	return append(dst, '}')
}

func appendReference(dst []byte, name string, o *corev1.ObjectReference) []byte {
	dst = append(appendName(dst, name), '{')
	dst = appendMember(dst, "kind", o.Kind)
	dst = appendMember(dst, "namespace", o.Namespace)
	dst = appendMember(dst, "name", o.Name)
	dst = appendMember(dst, "uid", string(o.UID))
	dst = appendMember(dst, "apiVersion", o.APIVersion)
	dst = appendMember(dst, "resourceVersion", o.ResourceVersion)
	dst = appendMember(dst, "fieldPath", o.FieldPath)
	return append(dst, '}')
}

// appendMember omits an empty value.
func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendMarshaledString(appendName(dst, name), value)
}

// appendCount omits a count of zero.
func appendCount(dst []byte, n int32) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendInt(appendName(dst, "count"), int64(n), 10)
}

// appendTimeMember writes a zero time as null.
func appendTimeMember(dst []byte, name string, t time.Time, layout string) []byte {
	dst = appendName(dst, name)
	if t.IsZero() {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, layout)
	return append(dst, '"')
}

// appendName appends the name of the next member of the object that dst ends in.
func appendName(dst []byte, name string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}
