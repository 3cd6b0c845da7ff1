package format

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-logfmt/logfmt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
)

// record writes the fields of a line in logfmt or flat JSON: first what a person reads first,
// then the rest. The keys from reason to sourcehost are those of Grafana Alloy, so that
// queries for its lines work:
// https://github.com/grafana/alloy/blob/main/internal/component/loki/source/kubernetes_events/event_controller.go
func (w *fieldWriter) record(r *event.Record, standalone bool) {
	e := r.Event
	if standalone {
		w.time("time", r.Time)
		w.string("namespace", e.Namespace)
	}
	w.string("reason", e.Reason)
	w.metadata("kind", e.InvolvedObject.Kind)
	w.metadata("name", e.InvolvedObject.Name)
	w.string("msg", e.Message)
	w.metadata("type", e.Type)
	if !w.short {
		w.int("count", int64(r.Count()))
	}
	w.string("action", e.Action)
	w.string("objectAPIversion", e.InvolvedObject.APIVersion)
	w.string("objectRV", e.InvolvedObject.ResourceVersion)
	w.metadata("eventRV", e.ResourceVersion)
	reporter, host := w.short && reportedTwice(e), w.short && hostTwice(e)
	if !host {
		w.string("reportinginstance", e.ReportingInstance)
	}
	if !reporter {
		w.string("reportingcontroller", e.ReportingController)
		w.string("sourcecomponent", e.Source.Component)
	}
	if !host {
		w.string("sourcehost", e.Source.Host)
	}

	w.string("event", e.Name)
	if r.Repeated() {
		w.time("firstseen", r.FirstTime())
	}
	w.string("fieldpath", e.InvolvedObject.FieldPath)
	if e.Related != nil {
		w.string("related", objectName(e.Related))
		w.string("relateduid", string(e.Related.UID))
	}
	if !r.ObservedTime.IsZero() && !w.short {
		w.string("note", "observed at "+r.Value(event.FieldObservedTime)+", "+tooFar)
	}
	if r.Gap {
		for _, p := range r.GapFields() {
			if n, err := strconv.ParseInt(p.Value, 10, 64); err == nil && p.Name == "missed_at_least" {
				w.int(p.Name, n)
			} else {
				w.string(p.Name, p.Value)
			}
		}
	}
	if standalone {
		w.string("event_uid", string(e.UID))
		w.string("uid", string(e.InvolvedObject.UID))
		w.string("component", r.Value(event.FieldComponent))
		w.string("node", r.Value(event.FieldNode))
		w.string("detected_level", r.Value(event.FieldDetectedLevel))
		w.time("observed_time", r.ObservedTime)
		for _, p := range r.Attributes {
			w.string(p.Name, p.Value)
		}
	}
}

// reportedTwice reports whether both names of the reporter are the component in the
// metadata, as recorders of core/v1 set them.
func reportedTwice(e *corev1.Event) bool {
	c := e.Source.Component
	return c == e.ReportingController && inMetadata(c)
}

// hostTwice reports whether both hosts of the reporter are the node in the metadata. The
// node of an Event about a Node is that Node, whatever its reporter's host is.
func hostTwice(e *corev1.Event) bool {
	host := e.Source.Host
	return host == e.ReportingInstance && e.InvolvedObject.Kind != "Node" && inMetadata(host)
}

// inMetadata reports whether metadata has the same value: it is not truncated, and has no
// U+FFFD, which Loki replaces by a space.
func inMetadata(value string) bool {
	return value != "" && len(value) <= event.MaxMetadataValue && !strings.ContainsRune(value, utf8.RuneError)
}

// objectName returns kind/namespace/name, without empty parts.
func objectName(o *corev1.ObjectReference) string {
	s := o.Kind
	for _, part := range []string{o.Namespace, o.Name} {
		if s != "" && part != "" {
			s += "/"
		}
		s += part
	}
	return s
}

// fieldWriter appends fields to a line and omits empty ones.
type fieldWriter struct {
	dst   []byte
	json  bool // else logfmt
	short bool // without the fields of the metadata
	begun bool // a field has been written
}

// metadata appends a field that the metadata has too.
func (w *fieldWriter) metadata(name, value string) {
	if !w.short || !inMetadata(value) {
		w.string(name, value)
	}
}

func (w *fieldWriter) string(name, value string) {
	if value == "" {
		return
	}
	w.name(name)
	if w.json || needsQuotes(value) {
		w.dst = appendQuoted(w.dst, value)
	} else {
		w.dst = append(w.dst, value...)
	}
}

func (w *fieldWriter) int(name string, value int64) {
	if value == 0 {
		return
	}
	w.name(name)
	w.dst = strconv.AppendInt(w.dst, value, 10)
}

func (w *fieldWriter) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	w.name(name)
	if w.json {
		w.dst = append(w.dst, '"')
	}
	w.dst = appendTime(w.dst, t)
	if w.json {
		w.dst = append(w.dst, '"')
	}
}

func (w *fieldWriter) name(name string) {
	switch {
	case !w.json:
		if w.begun {
			w.dst = append(w.dst, ' ')
		}
		w.dst = append(w.dst, name...)
		w.dst = append(w.dst, '=')
	default:
		if w.begun {
			w.dst = append(w.dst, ',')
		}
		w.dst = append(w.dst, '"')
		w.dst = append(w.dst, name...)
		w.dst = append(w.dst, '"', ':')
	}
	w.begun = true
}

// parseJSON parses a flat object.
func (b *builder) parseJSON(text string) bool {
	var flat map[string]any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&flat); err != nil {
		return false
	}
	known := b.hasMetadata && len(flat) == 0
	for key, value := range flat {
		known = known || keys[key] || b.hasMetadata && key == shortestKey
		switch v := value.(type) {
		case string:
			b.setKey(key, v)
		case json.Number:
			b.setKey(key, v.String())
		}
	}
	return known
}

// keys are keys that a line of Hindsight begins with. They distinguish logfmt from text, and a
// flat object from others.
var keys = map[string]bool{
	"time": true, "namespace": true, "name": true, "kind": true, "action": true, "objectAPIversion": true,
	"objectRV": true, "eventRV": true, "reportinginstance": true, "reportingcontroller": true,
	"sourcecomponent": true, "sourcehost": true, "reason": true, "type": true, "count": true, "msg": true,
}

// shortestKey is the only key of a short line about an Event that has nothing but a name. If
// that has none either, the line is empty.
const shortestKey = "event"

func isLogfmt(text string, hasMetadata bool) bool {
	key, _, found := strings.Cut(text, "=")
	return found && keys[key] || hasMetadata && (text == "" || found && key == shortestKey)
}

func (b *builder) parseLogfmt(text string) bool {
	decoder := logfmt.NewDecoderSize(strings.NewReader(text), len(text)+1)
	for decoder.ScanRecord() {
		for decoder.ScanKeyval() {
			b.setKey(string(decoder.Key()), string(decoder.Value()))
		}
	}
	return decoder.Err() == nil
}

// setKey sets the value of a key of logfmt or flat JSON.
func (b *builder) setKey(key, value string) {
	e := b.record.Event
	switch key {
	case "time":
		b.record.Time = parseTime(value)
	case "namespace":
		e.Namespace = value
	case "name":
		e.InvolvedObject.Name = value
	case "kind":
		e.InvolvedObject.Kind = value
	case "action":
		e.Action = value
	case "objectAPIversion":
		e.InvolvedObject.APIVersion = value
	case "objectRV":
		e.InvolvedObject.ResourceVersion = value
	case "eventRV":
		e.ResourceVersion = value
	case "reportinginstance":
		e.ReportingInstance = value
	case "reportingcontroller":
		e.ReportingController = value
	case "sourcecomponent":
		e.Source.Component = value
	case "sourcehost":
		e.Source.Host = value
	case "reason":
		e.Reason = value
	case "type":
		e.Type = value
	case "count":
		n, _ := strconv.ParseInt(value, 10, 32)
		b.count = int32(n)
	case "msg":
		e.Message = value
	case "event":
		e.Name = value
	case "firstseen":
		b.firstSeen = parseTime(value)
	case "fieldpath":
		e.InvolvedObject.FieldPath = value
	case "related":
		b.setRelated(value)
	case "relateduid":
		b.relatedObject().UID = types.UID(value)
	case "event_uid":
		e.UID = types.UID(value)
	case "uid":
		e.InvolvedObject.UID = types.UID(value)
	case "component":
		b.component = value
	case "node":
		b.node = value
	case "detected_level":
		b.level = value
	case "observed_time":
		b.record.ObservedTime = parseTime(value)
	default:
		if !event.SetGapField(e, key, value) && !derivedKeys[key] {
			b.setAttribute(key, value)
		}
	}
}

// derivedKeys are keys of which the values follow from others.
var derivedKeys = map[string]bool{"note": true, "detected_level": true}

// setRelated parses kind/namespace/name or kind/name.
func (b *builder) setRelated(s string) {
	o := b.relatedObject()
	parts := strings.SplitN(s, "/", 3)
	o.Kind = parts[0]
	if len(parts) > 1 {
		o.Name = parts[len(parts)-1]
	}
	if len(parts) > 2 {
		o.Namespace = parts[1]
	}
}

func (b *builder) relatedObject() *corev1.ObjectReference {
	e := b.record.Event
	if e.Related == nil {
		e.Related = &corev1.ObjectReference{}
	}
	return e.Related
}

// parseTime returns zero for a malformed time.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
