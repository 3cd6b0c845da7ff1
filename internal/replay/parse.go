package replay

import (
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// envelope has the fields by which the forms of input are told apart.
type envelope struct {
	metav1.TypeMeta `json:",inline"`

	Items []json.RawMessage `json:"items"` // of a list

	Verb  string          `json:"verb"` // of an eventrouter line
	Event json.RawMessage `json:"event"`

	Object json.RawMessage `json:"object"` // of a watch event
}

var errNoEvent = errors.New("no Event")

// parse reads one JSON document that begins on a line. Its error is a *BadInput.
func parse(text []byte, line int) (*Document, error) {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, &BadInput{line, fmt.Errorf("not an Event in JSON: %w", err)}
	}
	if e.Items != nil {
		doc := &Document{List: true}
		for i, item := range e.Items {
			ev, err := parseEvent(item, false)
			if err != nil {
				doc.Bad = append(doc.Bad, &BadInput{line, fmt.Errorf("item %d of the list that begins here: %w", i+1, err)})
				continue
			}
			doc.Events = append(doc.Events, ev)
		}
		return doc, nil
	}
	var (
		ev  *corev1.Event
		err error
	)
	switch {
	case e.Event != nil:
		ev, err = parseEvent(e.Event, true)
	case e.Object != nil:
		ev, err = parseEvent(e.Object, false)
	default:
		ev, err = parseEvent(text, false)
	}
	if err != nil {
		return nil, &BadInput{line, err}
	}
	return &Document{Events: []*corev1.Event{ev}}, nil
}

// parseEvent reads one Event of either API group. Lines of eventrouter do not
// say that they are of the kind Event, since the encoder of Go types leaves it
// out.
func parseEvent(text []byte, untyped bool) (*corev1.Event, error) {
	var t metav1.TypeMeta
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("not an Event in JSON: %w", err)
	}
	switch {
	case t.Kind == "" && !untyped:
		return nil, fmt.Errorf("%w: it has no kind", errNoEvent)
	case t.Kind != "" && t.Kind != "Event":
		return nil, fmt.Errorf("%w, but a %s", errNoEvent, t.Kind)
	}
	ev := &corev1.Event{}
	if t.APIVersion == eventsv1.SchemeGroupVersion.String() {
		var newer eventsv1.Event
		if err := json.Unmarshal(text, &newer); err != nil {
			return nil, fmt.Errorf("not an Event in JSON: %w", err)
		}
		ev = fromEventsV1(&newer)
	} else if err := json.Unmarshal(text, ev); err != nil {
		return nil, fmt.Errorf("not an Event in JSON: %w", err)
	}
	ev.TypeMeta = metav1.TypeMeta{} // as the watch delivers it
	if ev.Name == "" && ev.InvolvedObject.Name == "" {
		return nil, fmt.Errorf("%w: neither it nor the object it is about has a name", errNoEvent)
	}
	return ev, nil
}

// fromEventsV1 gives an Event of events.k8s.io/v1 the shape it has in core/v1.
// They are two faces of one object.
func fromEventsV1(e *eventsv1.Event) *corev1.Event {
	ev := &corev1.Event{
		ObjectMeta:          e.ObjectMeta,
		InvolvedObject:      e.Regarding,
		Reason:              e.Reason,
		Message:             e.Note,
		Source:              e.DeprecatedSource,
		FirstTimestamp:      e.DeprecatedFirstTimestamp,
		LastTimestamp:       e.DeprecatedLastTimestamp,
		Count:               e.DeprecatedCount,
		Type:                e.Type,
		EventTime:           e.EventTime,
		Action:              e.Action,
		Related:             e.Related,
		ReportingController: e.ReportingController,
		ReportingInstance:   e.ReportingInstance,
	}
	if e.Series != nil {
		ev.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return ev
}

// Shift moves every time of an Event by whole seconds.
func Shift(e *corev1.Event, seconds int64) {
	for _, t := range []*metav1.Time{&e.CreationTimestamp, &e.FirstTimestamp, &e.LastTimestamp, e.DeletionTimestamp} {
		if t != nil && !t.IsZero() {
			*t = metav1.Unix(t.Unix()+seconds, int64(t.Nanosecond()))
		}
	}
	micro := []*metav1.MicroTime{&e.EventTime}
	if e.Series != nil {
		micro = append(micro, &e.Series.LastObservedTime)
	}
	for _, t := range micro {
		if !t.IsZero() {
			*t = metav1.NewMicroTime(metav1.Unix(t.Unix()+seconds, int64(t.Nanosecond())).Time)
		}
	}
	for i := range e.ManagedFields {
		if t := e.ManagedFields[i].Time; t != nil {
			*t = metav1.Unix(t.Unix()+seconds, 0)
		}
	}
}
