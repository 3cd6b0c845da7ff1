package line

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/go-logfmt/logfmt"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
)

// json reads an object: {"verb":…,"event":{…}} or a flat one.
func (d *draft) json(text string) bool {
	var router struct {
		Verb  string
		Event *corev1.Event
		Time  time.Time
	}
	if strings.HasPrefix(text, `{"verb":`) {
		if err := json.Unmarshal([]byte(text), &router); err != nil || router.Event == nil {
			return false
		}
		d.record.Record, d.record.Whole = event.NewStored(router.Event, router.Time), true
		return true
	}
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

// text reads a sentence. Where reason and object are beside the line, they are
// looked for in it, since lines of earlier versions are not always clear.
func (d *draft) text(s string) bool {
	e := d.record.Event
	known := d.kind != "" && d.name != ""
	said, ok := event.ParseText(s)
	if known && (!ok || said.Kind != d.kind || said.Name != d.name || said.Reason != d.reason) {
		begin := strings.TrimSpace(d.reason + " " + d.kind + "/" + d.name)
		if rest, ok := strings.CutPrefix(s, begin); ok && (rest == "" || rest[0] == ':' || rest[0] == ' ') {
			e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name = d.reason, d.kind, d.name
			e.Message = strings.TrimPrefix(strings.TrimPrefix(rest, ":"), " ")
			return true
		}
	}
	if !ok || !said.Standalone && d.reason == "" && !d.metadata {
		return false
	}
	if said.Standalone {
		d.record.Time, d.record.ObservedTime = said.Time, said.ObservedTime
		e.Namespace, e.Type, d.counted = said.Namespace, said.Type, said.Count
	}
	e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message = said.Reason, said.Kind, said.Name, said.Message
	e.Name = said.EventName
	if said.Related != "" {
		d.related(said.Related)
	}
	return true
}
