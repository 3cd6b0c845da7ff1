package input

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// envelope has the fields that distinguish the forms of JSON objects.
type envelope struct {
	Kind       text `json:"kind"`
	APIVersion text `json:"apiVersion"`

	Items json.RawMessage `json:"items"` // of a list, null included

	Verb  text            `json:"verb"` // of an eventrouter line
	Event json.RawMessage `json:"event"`

	Type   text            `json:"type"` // of a watch event
	Object json.RawMessage `json:"object"`

	Log    *text `json:"log"` // of Docker's json-file driver, or of a log collector
	Stream *text `json:"stream"`

	InvolvedObject json.RawMessage `json:"involvedObject"` // of an Event without a kind
	Regarding      json.RawMessage `json:"regarding"`

	Time          text            `json:"time"` // of a line of Hindsight
	DetectedLevel text            `json:"detected_level"`
	Message       json.RawMessage `json:"message"`
	Line          json.RawMessage `json:"line"`
}

// text is a string, and empty for any other JSON value, because other objects may have
// values of any type in these fields.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// decodeObject decodes a JSON object. of is the list that contains it, or nil.
func (d *Decoder) decodeObject(raw []byte, of *list, at location) {
	if of != nil && of.excludesEvents() {
		return // listEnd records the problem
	}
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		d.problems.addDamaged(at.line, "not an Event in JSON: %v", err)
		return
	}
	if of != nil {
		of.inherit(&e)
	}
	switch {
	case e.Log != nil && e.Stream != nil:
		d.decodeDockerLine(string(*e.Log), string(*e.Stream), at)
	case e.Verb != "" && isObject(e.Event):
		d.decodeEventRouter(&e, raw, at)
	case isObject(e.Object) && d.decodeFrame(&e, at):
	// Before kinds, because its kind is the kind of the involved object, such as Event.
	case e.DetectedLevel != "" && e.Time != "" && d.decodeHindsightLine(raw, at):
	case e.Items != nil:
		d.decodeItems(raw, &e, at)
	case e.Kind == "Status":
		d.problems.addWatchError(at.line, statusText(raw))
	case e.Kind == "Event", e.Kind == "" && (isObject(e.InvolvedObject) || isObject(e.Regarding)):
		d.decodeEvent(raw, &e, at)
	case d.decodeCollectorObject(&e, raw, at):
	case e.Kind != "":
		d.problems.addObject(at.line, kindName(&e))
	case of != nil && of.kind == "":
		of.unknown++
		if of.unknown == 1 {
			of.unknownLine = at.line
		}
	default:
		d.problems.addLine(at.line, raw)
	}
}

func isObject(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }

func kindName(e *envelope) string {
	if e.Kind == "Event" || e.Kind == "EventList" {
		return fmt.Sprintf("%s of %s", e.Kind, e.APIVersion)
	}
	return string(e.Kind)
}

// excludesEvents reports whether a list of this kind has no Events.
func (l *list) excludesEvents() bool {
	return strings.HasSuffix(l.kind, "List") && l.kind != "List" && (l.kind != "EventList" || !isEventVersion(l.apiVersion))
}

// inherit sets the kind and the version of an item of an EventList, in which the API server
// omits them.
func (l *list) inherit(e *envelope) {
	if l.kind != "EventList" {
		return
	}
	if e.Kind == "" {
		e.Kind = "Event"
	}
	if e.APIVersion == "" {
		e.APIVersion = text(l.apiVersion)
	}
}

// isEventVersion reports whether apiVersion is a version of Kubernetes Events. It may be
// empty.
func isEventVersion(apiVersion string) bool {
	return apiVersion == "" || apiVersion == "v1" || strings.HasPrefix(apiVersion, eventsv1.GroupName+"/")
}

// decodeItems decodes the items of a list.
func (d *Decoder) decodeItems(raw []byte, e *envelope, at location) {
	l := &list{kind: string(e.Kind), apiVersion: string(e.APIVersion)}
	var items []json.RawMessage
	if err := json.Unmarshal(e.Items, &items); err != nil {
		if e.Kind == "" {
			d.problems.addLine(at.line, raw)
		} else {
			d.problems.addObject(at.line, kindName(e))
		}
		return
	}
	for _, item := range items {
		if isObject(item) {
			d.decodeObject(item, l, at)
		}
	}
	d.listEnd(raw, l, at)
}

// listEnd checks the kind of a list after its items.
func (d *Decoder) listEnd(raw []byte, l *list, at location) {
	var t metav1.TypeMeta
	if err := json.Unmarshal(raw, &t); err != nil {
		d.problems.addDamaged(at.line, "not a list in JSON: %v", err)
		return
	}
	l.kind, l.apiVersion = t.Kind, t.APIVersion
	switch {
	case l.excludesEvents():
		d.problems.addObject(at.line, kindName(&envelope{Kind: text(t.Kind), APIVersion: text(t.APIVersion)}))
	case l.unknown > 0:
		for range l.unknown {
			d.problems.addDamaged(l.unknownLine, "not an Event: it has no kind")
		}
	}
}

// decodeFrame decodes a watch frame. It returns false for other objects.
func (d *Decoder) decodeFrame(e *envelope, at location) bool {
	switch e.Type {
	case "ADDED", "MODIFIED":
		d.decodeObject(e.Object, nil, at)
	case "DELETED", "BOOKMARK": // no new state
	case "ERROR":
		d.problems.addWatchError(at.line, statusText(e.Object))
	default:
		return false
	}
	return true
}

func statusText(raw []byte) string {
	var s metav1.Status
	if err := json.Unmarshal(raw, &s); err != nil || s.Message == "" {
		return quote(raw)
	}
	if s.Reason != "" {
		return fmt.Sprintf("%s (%d %s)", s.Message, s.Code, s.Reason)
	}
	return s.Message
}

// anyEvent is an Event of either API, with the field that query -o json adds.
type anyEvent struct {
	corev1.Event

	Regarding                *corev1.ObjectReference `json:"regarding"`
	Note                     string                  `json:"note"`
	DeprecatedSource         corev1.EventSource      `json:"deprecatedSource"`
	DeprecatedFirstTimestamp metav1.Time             `json:"deprecatedFirstTimestamp"`
	DeprecatedLastTimestamp  metav1.Time             `json:"deprecatedLastTimestamp"`
	DeprecatedCount          int32                   `json:"deprecatedCount"`
	NewReportingController   string                  `json:"reportingController"`

	Time text `json:"time"`
}

var errNoName = errors.New("not an Event: neither it nor its involved object has a name")

// readEvent decodes an Event of core/v1, or of any version of events.k8s.io, which it
// converts to core/v1.
func readEvent(raw []byte, newer bool) (*corev1.Event, string, error) {
	var a anyEvent
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, "", fmt.Errorf("not an Event in JSON: %w", err)
	}
	e := &a.Event
	if newer {
		if a.Regarding != nil {
			e.InvolvedObject = *a.Regarding
		}
		e.Message, e.Source, e.Count = a.Note, a.DeprecatedSource, a.DeprecatedCount
		e.FirstTimestamp, e.LastTimestamp = a.DeprecatedFirstTimestamp, a.DeprecatedLastTimestamp
		e.ReportingController = a.NewReportingController
	}
	if e.Name == "" && e.InvolvedObject.Name == "" {
		return nil, "", errNoName
	}
	e.TypeMeta = metav1.TypeMeta{} // as in the watch
	return e, string(a.Time), nil
}

// decodeEvent decodes an Event.
func (d *Decoder) decodeEvent(raw []byte, e *envelope, at location) {
	if !isEventVersion(string(e.APIVersion)) {
		d.problems.addObject(at.line, kindName(e))
		return
	}
	newer := strings.HasPrefix(string(e.APIVersion), eventsv1.GroupName+"/") || e.APIVersion == "" && isObject(e.Regarding)
	d.emitEvent(raw, newer, "", nil, at)
}

// decodeEventRouter decodes {"verb":…,"event":{…}}. The Event has no kind, because
// encoding/json of API types omits it.
func (d *Decoder) decodeEventRouter(e *envelope, raw []byte, at location) {
	var inner envelope
	if err := json.Unmarshal(e.Event, &inner); err != nil {
		d.problems.addDamaged(at.line, "not an Event in JSON: %v", err)
		return
	}
	if inner.Kind != "" && (inner.Kind != "Event" || !isEventVersion(string(inner.APIVersion))) {
		d.problems.addObject(at.line, kindName(&inner))
		return
	}
	if e.Verb == "DELETED" {
		return
	}
	newer := strings.HasPrefix(string(inner.APIVersion), eventsv1.GroupName+"/")
	d.emitEvent(e.Event, newer, string(e.Time), raw, at)
}

// emitEvent passes an Event to visit. recordTime is the time outside of the Event, and text
// its line, if it is a line of Hindsight.
func (d *Decoder) emitEvent(raw []byte, newer bool, recordTime string, text []byte, at location) {
	e, inside, err := readEvent(raw, newer)
	if err != nil {
		d.problems.addDamaged(at.line, "%v", err)
		return
	}
	stored, ok := parseTime(inside) // from query -o json or yaml
	if !ok && recordTime != "" {
		if stored, ok = parseTime(recordTime); ok && !bytes.HasSuffix(text, []byte(`,"time":"`+recordTime+`"}`)) && !hasVersionNanoseconds(stored, e) {
			stored = time.Time{} // of a log collector
		}
	}
	r := format.Record{Record: event.NewFromLine(e, stored), WholeEvent: true}
	d.emit(&r, text)
}

func parseTime(s string) (time.Time, bool) {
	if s == "" {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

// hasVersionNanoseconds reports whether the nanoseconds of a time are derived from the
// Event's version, so that Hindsight wrote it.
func hasVersionNanoseconds(t time.Time, e *corev1.Event) bool {
	of := event.NewReplayed(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{ResourceVersion: e.ResourceVersion},
		FirstTimestamp: metav1.Unix(1, 0),
	})
	return t.Nanosecond() == of.Time.Nanosecond()
}

// decodeHindsightLine decodes a standalone line of the formats logfmt, json or text.
func (d *Decoder) decodeHindsightLine(text []byte, at location) bool {
	r, err := format.Parser{}.Parse(format.Entry{Line: string(text)})
	if err != nil || r.Time.IsZero() {
		return false
	}
	d.emit(&r, text)
	return true
}

// decodeCollectorObject decodes an object of a log collector that contains a line, as a
// string or as an object.
func (d *Decoder) decodeCollectorObject(e *envelope, raw []byte, at location) bool {
	if len(at.wraps) >= maxWraps {
		return false
	}
	at.wraps = append(slices.Clip(at.wraps), "collector")
	var lines [3]string // empty if it is not a string
	_ = json.Unmarshal(e.Message, &lines[0])
	_ = json.Unmarshal(e.Line, &lines[1])
	if e.Log != nil {
		lines[2] = string(*e.Log)
	}
	for _, inner := range lines {
		if mayBeRecord([]byte(inner)) {
			d.decodeContent([]byte(strings.TrimRight(inner, "\r\n")), at)
			return true
		}
	}
	if !bytes.Contains(raw, []byte(`"involvedObject"`)) {
		return false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var inner envelope
		member := members[name]
		if isObject(member) && json.Unmarshal(member, &inner) == nil && (inner.Verb != "" && isObject(inner.Event) || isObject(inner.InvolvedObject)) {
			d.decodeObject(member, nil, at)
			return true
		}
	}
	return false
}
