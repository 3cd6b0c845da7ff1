// Package router drops and redacts records before they are journaled (Intake) and selects
// the sinks that receive them (Selectors).
//
// The intake's decisions depend on earlier Events and are stored in the record.
// Selectors depend on the record alone, so that a record that is sent again goes to
// the same sinks.
package router

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/event"
)

// Selector matches records by their fields, as in {type="Warning", namespace!~"kube-.*"}. It
// is a Prometheus selector without a metric name: all matchers have to match, regular
// expressions are anchored at both ends, and a missing field is empty.
//
// A matcher of reason sees the Event's own reason, even if its label is other. A name that is
// no field of every Event is an attribute, which the configuration has to define.
type Selector struct {
	text     string
	matchers []matcher
}

type matcher struct {
	field event.Field // 0: the attribute of that name
	*labels.Matcher
}

func (m matcher) value(r *event.Record) string {
	if m.field == 0 {
		return r.Attribute(m.Name)
	}
	return r.Value(m.field)
}

var selectorParser = parser.NewParser(parser.Options{})

// ParseSelector reads a selector. The error is a single line.
func ParseSelector(text string) (Selector, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Selector{}, errors.New(`selector is empty; write one like {type="Warning"}`)
	}
	parsed, err := selectorParser.ParseMetricSelector(text)
	if err != nil {
		return Selector{}, selectorError(text, err)
	}
	if len(parsed) == 0 {
		return Selector{}, selectorError(text, errors.New("it has no matcher"))
	}
	s := Selector{text: text, matchers: make([]matcher, 0, len(parsed))}
	for _, m := range parsed {
		field, err := selectorField(m)
		if err != nil {
			return Selector{}, selectorError(text, err)
		}
		s.matchers = append(s.matchers, matcher{field, m})
	}
	return s, nil
}

func selectorField(m *labels.Matcher) (event.Field, error) {
	if m.Name == model.MetricNameLabel {
		return 0, fmt.Errorf(`%q is in the place of a metric name, and Events have none; write a selector like {type="Warning"}`, m.Value)
	}
	field, ok := event.ParseField(m.Name)
	switch {
	case !ok && event.IsAttributeName(m.Name), field == event.FieldWorkloadKind, field == event.FieldWorkloadName:
		return 0, nil
	case !slices.Contains(event.Fields, field):
		return 0, fmt.Errorf("unknown name %q; valid are %s", m.Name, event.FieldNames(event.Fields))
	}
	return field, nil
}

// selectorError returns an error of one line, even if the selector or the parser's error
// has several.
func selectorError(text string, err error) error {
	if strings.ContainsAny(err.Error(), "\r\n") {
		err = fmt.Errorf("%q", err.Error())
	}
	return fmt.Errorf("selector %#q: %w", text, err)
}

// Match reports whether the record matches. It does not allocate, and is safe for
// concurrent use.
func (s Selector) Match(r *event.Record) bool {
	for _, m := range s.matchers {
		if !m.Matches(m.value(r)) {
			return false
		}
	}
	return true
}

// Attributes returns the names of the attributes that the selector refers to.
func (s Selector) Attributes() (names []string) {
	for _, m := range s.matchers {
		if m.field == 0 {
			names = append(names, m.Name)
		}
	}
	return names
}

// String returns the parsed text, without surrounding white space.
func (s Selector) String() string { return s.text }

// MarshalYAML returns String.
func (s Selector) MarshalYAML() (any, error) { return s.text, nil }

// Selectors are alternatives: one string or a list of them in YAML.
type Selectors []Selector

// Match reports whether one of the selectors matches, or there are none.
func (ss Selectors) Match(r *event.Record) bool {
	return len(ss) == 0 || ss.Any(r)
}

// Any reports whether one of the selectors matches.
func (ss Selectors) Any(r *event.Record) bool {
	for _, s := range ss {
		if s.Match(r) {
			return true
		}
	}
	return false
}

// UnmarshalYAML parses one selector or a list of them. Its error lists each invalid one
// with its line.
func (ss *Selectors) UnmarshalYAML(n *yaml.Node) error {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	var (
		parsed   Selectors
		problems []string
	)
	for _, n := range nodes {
		var text string
		if err := n.Decode(&text); err != nil {
			problems = append(problems, fmt.Sprintf("line %d: want a selector or a list of them", n.Line))
			continue
		}
		s, err := ParseSelector(text)
		if err != nil {
			problems = append(problems, fmt.Sprintf("line %d: %s", n.Line, err))
			continue
		}
		parsed = append(parsed, s)
	}
	if len(problems) > 0 {
		return &yaml.TypeError{Errors: problems} // the decoder collects them
	}
	*ss = parsed
	return nil
}
