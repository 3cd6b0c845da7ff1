package audit

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
)

// Rules are the parts of a configuration that decide which Events are stored, and with which
// message.
type Rules struct {
	Namespaces []string // watched; empty: all
	Drop       []Selector
	Redact     []Redaction
	Match      []Selector // of the sink, any of them; empty: all
	Sink       string     // its name
}

// Redaction replaces text in messages.
type Redaction struct {
	Match *regexp.Regexp
	With  string
}

// Selector is a selector, as in {type="Warning", namespace!~"kube-.*"}.
type Selector struct {
	text     string
	matchers []*labels.Matcher // of fields of every Event
	// attributes is set if it has matchers of other fields, which the API server's Event does not have.
	attributes bool
}

// ParseSelector parses a selector of the configuration.
func ParseSelector(text string) (Selector, error) {
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		return Selector{}, fmt.Errorf("selector %#q: %w", text, err)
	}
	s := Selector{text: text}
	for _, m := range matchers {
		if _, ok := field(&corev1.Event{}, m.Name); ok {
			s.matchers = append(s.matchers, m)
		} else {
			s.attributes = true
		}
	}
	return s, nil
}

// field returns the value of a field that selectors may use.
func field(e *corev1.Event, name string) (value string, ok bool) {
	switch name {
	case "namespace":
		return e.Namespace, true
	case "kind":
		return e.InvolvedObject.Kind, true
	case "name":
		return e.InvolvedObject.Name, true
	case "reason":
		return e.Reason, true
	case "type":
		return e.Type, true
	case "component":
		return component(e), true
	case "node":
		return node(e), true
	case "message":
		return e.Message, true
	}
	return "", false
}

// matches reports whether the selector matches an Event, or can match it if it has attributes.
func (s Selector) matches(e *corev1.Event) bool {
	for _, m := range s.matchers {
		if value, _ := field(e, m.Name); !m.Matches(value) {
			return false
		}
	}
	return true
}

// apply applies the rules to a state. It changes the message of the Event.
func (r Rules) apply(e *corev1.Event, s *state) {
	s.reason, s.detail = r.excludedBy(e) // drop rules see the message before redaction
	for _, redact := range r.Redact {
		e.Message = redact.Match.ReplaceAllString(e.Message, redact.With)
	}
	s.message = hash(plain(e.Message))
	if s.reason != "" || len(r.Match) == 0 {
		return
	}
	s.reason, s.detail = NotMatched, "sink "+r.Sink
	for _, match := range r.Match {
		switch {
		case !match.matches(e):
		case match.attributes:
			s.reason, s.detail = Undecided, match.text
		default:
			s.reason, s.detail = "", ""
			return
		}
	}
}

// excludedBy returns the rule that excludes an Event from all sinks; empty if none does.
func (r Rules) excludedBy(e *corev1.Event) (reason, detail string) {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, e.Namespace) {
		return NotWatched, "source.namespaces: " + strings.Join(r.Namespaces, ", ")
	}
	for _, drop := range r.Drop {
		switch {
		case !drop.matches(e):
		case drop.attributes:
			reason, detail = Undecided, drop.text
		default:
			return Dropped, drop.text
		}
	}
	return reason, detail
}
