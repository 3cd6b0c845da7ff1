package line

import (
	"encoding/json"
	"regexp"
	"strconv"
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
		whole := event.NewReplayed(router.Event)
		d.record.Record, d.record.Whole = whole, true
		if !router.Time.IsZero() {
			d.record.Time = router.Time.UTC()
		}
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

var (
	// time, namespace, and a type where it is not Normal
	standalone = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\S+) (?:(\S+) )?(?:(Warning) )?(.*)$`)
	// reason, object, message
	sentence = regexp.MustCompile(`^(?:(\S+) )?([A-Za-z][A-Za-z0-9.-]*)/([^\s:]+(?::[^\s:]+)*)(?:: (.*))?$`)
	// how often
	times = regexp.MustCompile(`^(.*) \(x(\d+)\)$`)
	// when, according to the reporter
	observed = regexp.MustCompile(`^(.*) \(observed at (\S+), [^()]*\)$`)
)

// text reads a sentence. What reason and object are is known if they are beside
// the line; else the first words are taken for them.
func (d *draft) text(s string) bool {
	e := d.record.Event
	alone := false
	if m := standalone.FindStringSubmatch(s); m != nil {
		if at := parseTime(m[1]); !at.IsZero() {
			alone = true
			d.record.Time, e.Namespace, e.Type, s = at, m[2], m[3], m[4]
			if e.Type == "" {
				e.Type = corev1.EventTypeNormal
			}
		}
	}
	if alone {
		if m := observed.FindStringSubmatch(s); m != nil {
			d.record.ObservedTime = parseTime(m[2])
			s = m[1]
		}
		if m := times.FindStringSubmatch(s); m != nil {
			n, _ := strconv.ParseInt(m[2], 10, 32)
			d.counted = int32(n)
			s = m[1]
		}
	}
	if known := strings.TrimSpace(d.reason + " " + d.kind + "/" + d.name); d.kind != "" && d.name != "" {
		if rest, ok := strings.CutPrefix(s, known); ok && (rest == "" || rest[0] == ':' || rest[0] == ' ') {
			e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name = d.reason, d.kind, d.name
			e.Message = strings.TrimPrefix(strings.TrimPrefix(rest, ":"), " ")
			return true
		}
	}
	m := sentence.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message = m[1], m[2], m[3], m[4]
	if e.InvolvedObject.Kind == "Event" && alone {
		e.Name = e.InvolvedObject.Name
	}
	return alone || d.reason != ""
}
