package event

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// record writes the fields of a line in logfmt or flat JSON. The first part has
// the names and the order of Grafana Alloy, so that what was made for its lines
// works with ours:
// https://github.com/grafana/alloy/blob/main/internal/component/loki/source/kubernetes_events/event_controller.go
func (w *fieldWriter) record(r *Record, standalone bool) {
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
	w.int("count", int64(count(e)))
	w.string("msg", e.Message)

	w.string("event", e.Name)
	if t := firstTime(e); repeated(e) {
		w.time("firstseen", t)
	}
	w.string("fieldpath", e.InvolvedObject.FieldPath)
	if e.Related != nil {
		w.string("related", objectName(e.Related))
		w.string("relateduid", string(e.Related.UID))
	}
	if !r.ObservedTime.IsZero() {
		w.string("note", "observed at "+r.Value(FieldObservedTime)+", "+tooFar)
	}
	if r.Gap {
		w.gap(e)
	}
	if standalone {
		w.string("event_uid", string(e.UID))
		w.string("uid", string(e.InvolvedObject.UID))
		w.string("component", component(e))
		w.string("node", node(e))
		w.string("detected_level", level(e))
		w.time("observed_time", r.ObservedTime)
	}
}

func (w *fieldWriter) gap(e *corev1.Event) {
	for _, k := range gapKeys {
		v := e.Annotations[k.annotation]
		if k.name != gapMissedAtLeast {
			w.string(k.name, v)
		} else if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			w.int(k.name, n)
		}
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
