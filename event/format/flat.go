package format

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/go-logfmt/logfmt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
)

// record writes the fields of a line in logfmt or flat JSON. The first part has
// the names and the order of Grafana Alloy, so that what was made for its lines
// works with ours:
// https://github.com/grafana/alloy/blob/main/internal/component/loki/source/kubernetes_events/event_controller.go
func (w *fieldWriter) record(r *event.Record, standalone bool) {
	e := r.Event
	if standalone {
		w.time("time", r.Time)
		w.string("namespace", e.Namespace)
	}
	w.string("name", e.InvolvedObject.Name)
	w.string("kind", e.InvolvedObject.Kind)
	w.string("action", e.Action)
	w.string("objectAPIversion", e.InvolvedObject.APIVersion)
	w.string("objectRV", e.InvolvedObject.ResourceVersion)
	w.string("eventRV", e.ResourceVersion)
	w.string("reportinginstance", e.ReportingInstance)
	w.string("reportingcontroller", e.ReportingController)
	w.string("sourcecomponent", e.Source.Component)
	w.string("sourcehost", e.Source.Host)
	w.string("reason", e.Reason)
	w.string("type", e.Type)
	w.int("count", int64(r.Count()))
	w.string("msg", e.Message)

	w.string("event", e.Name)
	if r.Repeated() {
		w.time("firstseen", r.FirstTime())
	}
	w.string("fieldpath", e.InvolvedObject.FieldPath)
	if e.Related != nil {
		w.string("related", objectName(e.Related))
		w.string("relateduid", string(e.Related.UID))
	}
	if !r.ObservedTime.IsZero() {
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
	}
}

// objectName is kind/namespace/name, of what there is.
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

// fieldWriter appends fields to a line, and leaves empty ones out.
type fieldWriter struct {
	dst   []byte
	json  bool // else logfmt
	begun bool // a field has been written
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

// json reads a flat object.
func (d *draft) json(text string) bool {
	var flat map[string]any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&flat); err != nil {
		return false
	}
	known := false
	for key, value := range flat {
		known = known || keys[key]
		switch v := value.(type) {
		case string:
			d.set(key, v)
		case json.Number:
			d.set(key, v.String())
		}
	}
	return known
}

// keys are those that a line of ours may begin with, so that logfmt can be told
// from a sentence and our objects from others.
var keys = map[string]bool{
	"time": true, "namespace": true, "name": true, "kind": true, "action": true, "objectAPIversion": true,
	"objectRV": true, "eventRV": true, "reportinginstance": true, "reportingcontroller": true,
	"sourcecomponent": true, "sourcehost": true, "reason": true, "type": true, "count": true, "msg": true,
}

func isLogfmt(text string) bool {
	key, _, found := strings.Cut(text, "=")
	return found && keys[key]
}

func (d *draft) logfmt(text string) bool {
	decoder := logfmt.NewDecoderSize(strings.NewReader(text), len(text)+1)
	for decoder.ScanRecord() {
		for decoder.ScanKeyval() {
			d.set(string(decoder.Key()), string(decoder.Value()))
		}
	}
	return decoder.Err() == nil
}

// set takes the value of a key of logfmt or flat JSON.
func (d *draft) set(key, value string) {
	e := d.record.Event
	switch key {
	case "time":
		d.record.Time = parseTime(value)
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
		d.counted = int32(n)
	case "msg":
		e.Message = value
	case "event":
		e.Name = value
	case "firstseen":
		d.firstSeen = parseTime(value)
	case "fieldpath":
		e.InvolvedObject.FieldPath = value
	case "related":
		d.related(value)
	case "relateduid":
		d.relatedObject().UID = types.UID(value)
	case "event_uid":
		e.UID = types.UID(value)
	case "uid":
		e.InvolvedObject.UID = types.UID(value)
	case "component":
		d.component = value
	case "node":
		d.node = value
	case "observed_time":
		d.record.ObservedTime = parseTime(value)
	default:
		event.SetGapField(e, key, value)
	}
}

// related reads kind/namespace/name, of which the namespace may be missing.
func (d *draft) related(s string) {
	o := d.relatedObject()
	parts := strings.SplitN(s, "/", 3)
	o.Kind = parts[0]
	if len(parts) > 1 {
		o.Name = parts[len(parts)-1]
	}
	if len(parts) > 2 {
		o.Namespace = parts[1]
	}
}

// relatedObject is filled by two keys, in any order.
func (d *draft) relatedObject() *corev1.ObjectReference {
	e := d.record.Event
	if e.Related == nil {
		e.Related = &corev1.ObjectReference{}
	}
	return e.Related
}

// parseTime is zero for what is no time.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
