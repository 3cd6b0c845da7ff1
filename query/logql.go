package query

import (
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// Layout is how a Loki sink stores records. The zero value is not one; see
// DefaultLayout.
type Layout struct {
	Format   format.Format
	Metadata bool              // structured; else all is in the line
	Job      string            // the label job; empty: not asked for
	Labels   map[string]string // label → field
	Fixed    map[string]string // label → value
}

// DefaultLayout is that of a sink with nothing configured.
func DefaultLayout() Layout {
	return Layout{Format: format.Logfmt, Metadata: true, Job: "hindsight", Labels: event.DefaultLabelFields()}
}

// metadata are the fields kept in structured metadata.
var metadata = map[event.Field]bool{
	event.FieldComponent: true, event.FieldCount: true, event.FieldDetectedLevel: true, event.FieldEventUID: true,
	event.FieldEventVersion: true, event.FieldKind: true, event.FieldName: true,
	event.FieldNode: true, event.FieldObservedTime: true, event.FieldType: true, event.FieldUID: true,
	event.FieldFullReason: true, event.FieldFullKind: true, event.FieldFullType: true, event.FieldFullComponent: true, event.FieldFullNode: true,
}

// inLine are the keys that a parser makes of lines without structured metadata.
var inLine = map[format.Format]map[event.Field]string{
	format.Logfmt: flatKeys,
	format.JSON:   flatKeys,
	format.EventRouter: {
		event.FieldNamespace: "event.metadata.namespace", event.FieldKind: "event.involvedObject.kind",
		event.FieldName: "event.involvedObject.name", event.FieldReason: "event.reason", event.FieldType: "event.type",
		event.FieldMessage: "event.message", event.FieldUID: "event.involvedObject.uid",
		event.FieldEventUID: "event.metadata.uid", event.FieldEventVersion: "event.metadata.resourceVersion",
	},
}

var flatKeys = map[event.Field]string{
	event.FieldNamespace: "namespace", event.FieldKind: "kind", event.FieldName: "name", event.FieldReason: "reason",
	event.FieldType: "type", event.FieldMessage: "msg", event.FieldComponent: "component", event.FieldNode: "node",
	event.FieldUID: "uid", event.FieldEventUID: "event_uid", event.FieldEventVersion: "eventRV",
}

// LogQL returns the query that finds what is selected, as it can be pasted into
// Grafana. What the stored lines cannot be asked for is left out of it: then it
// finds more, and Match tells.
func (s *Selection) LogQL(l Layout) string {
	q := builder{layout: l, stream: s.fixedLabels(l)}
	for _, m := range s.matchers {
		f, ok := field(m.Name)
		if !ok {
			q.stream = append(q.stream, named(m, m.Name))
			continue
		}
		q.add(f, m)
	}
	if s.grep != nil {
		q.grep(s.grep.String())
	}
	return q.String()
}

// statesLogQL returns the query that finds the same as LogQL, or of it only the
// Events with these uids. Where all that Match needs is kept beside the line, the
// answer has nothing else, and a short line with uid and version.
func (s *Selection) statesLogQL(l Layout, uids []string) string {
	one := *s
	if m := matchAny(event.FieldEventUID, uids); m != nil {
		one.matchers = append(slices.Clip(s.matchers), m)
	}
	query := one.LogQL(l)
	if !l.Metadata || s.grep != nil {
		return query
	}
	keep := map[string]bool{"job": true} // keep wants at least one name
	for _, m := range s.matchers {
		f, ok := field(m.Name)
		label := ""
		if ok {
			label = builder{layout: l}.label(f)
		}
		switch {
		case !ok: // a label
			keep[m.Name] = true
		case label != "":
			keep[label] = true
			if full := f.Full(); full != 0 { // where the label is Other
				keep[full.String()] = true
			}
		case metadata[f]:
			keep[f.String()] = true
		default: // in the line
			return query
		}
	}
	return query + ` | line_format "eventRV={{.event_version}} event_uid={{.event_uid}}" | keep ` + strings.Join(sortedKeys(keep), ", ")
}

// Streams returns a selector of all streams of the sink, whatever is selected in
// them.
func (s *Selection) Streams(l Layout) string {
	stream := s.fixedLabels(l)
	for _, m := range s.matchers {
		if _, ok := field(m.Name); !ok {
			stream = append(stream, named(m, m.Name))
		}
	}
	return "{" + strings.Join(stream, ", ") + "}"
}

// fixedLabels are the labels that all streams of the sink have, unless others are
// asked for.
func (s *Selection) fixedLabels(l Layout) (matchers []string) {
	asked := map[string]bool{}
	for _, name := range s.onlyLabels() {
		asked[name] = true
	}
	add := func(name, value string) {
		if value != "" && !asked[name] {
			matchers = append(matchers, name+"="+quote(value))
		}
	}
	add("job", l.Job)
	for _, name := range sortedKeys(l.Fixed) {
		add(name, l.Fixed[name])
	}
	return matchers
}

// builder puts a query together.
type builder struct {
	layout Layout
	stream []string // matchers of labels
	lines  []string // filters of lines
	stages []string // filters of structured metadata
	parsed []string // what a parser has to find, as in name="key"
	after  []string // filters of that
}

func (q *builder) String() string {
	s := "{" + strings.Join(q.stream, ", ") + "}"
	for _, f := range q.lines {
		s += " " + f
	}
	for _, f := range q.stages {
		s += " | " + f
	}
	if len(q.parsed) > 0 {
		parser := "logfmt"
		if q.layout.Format != format.Logfmt {
			parser = "json"
		}
		s += " | " + parser + " " + strings.Join(q.parsed, ", ")
	}
	for _, f := range q.after {
		s += " | " + f
	}
	return s
}

// add asks for a field where the sink puts it.
func (q *builder) add(f event.Field, m *labels.Matcher) {
	label := q.label(f)
	switch {
	case label != "" && f.Full() != 0:
		q.orOther(f, label, m)
	case label != "":
		q.stream = append(q.stream, named(m, label))
	case q.layout.Metadata && metadata[f]:
		q.stages = append(q.stages, named(m, m.Name))
	default:
		q.inLine(f, m)
	}
}

func (q builder) label(f event.Field) string {
	for _, label := range sortedKeys(q.layout.Labels) {
		if q.layout.Labels[label] == f.String() {
			return label
		}
	}
	return ""
}

// orOther asks for the Event's own value of a field, which is in full_<field> where
// the label is "other".
func (q *builder) orOther(f event.Field, label string, m *labels.Matcher) {
	full := f.Full().String()
	switch m.Type {
	case labels.MatchEqual, labels.MatchRegexp:
		value := m.Value
		if m.Type == labels.MatchEqual {
			value = regexp.QuoteMeta(value)
		}
		if value != event.OtherLabel {
			value += "|" + event.OtherLabel
		}
		q.stream = append(q.stream, label+"=~"+quote(value))
		if q.layout.Metadata {
			q.stages = append(q.stages, named(m, label)+" or "+named(m, full))
		} else {
			q.inLine(f, m)
		}
	default:
		if m.Matches(event.OtherLabel) {
			q.stream = append(q.stream, named(m, label))
		}
		if q.layout.Metadata {
			q.stages = append(q.stages, named(m, full))
		} else {
			q.inLine(f, m)
		}
	}
}

// inLine asks for a key of the line under a name that no label has.
func (q *builder) inLine(f event.Field, m *labels.Matcher) {
	key, ok := inLine[q.layout.Format][f]
	if !ok {
		return
	}
	name := "event_" + strings.TrimPrefix(f.String(), "event_")
	if f == event.FieldEventUID || f == event.FieldEventVersion {
		name = "own_" + f.String()
	}
	q.parse(name, key)
	q.after = append(q.after, named(m, name))
}

func (q *builder) parse(name, key string) {
	p := name + "=" + quote(key)
	for _, have := range q.parsed {
		if have == p {
			return
		}
	}
	q.parsed = append(q.parsed, p)
}

// grep asks for a pattern in the message. A line has it as it is if it holds
// nothing that a line escapes; else the message is taken out of the line first.
func (q *builder) grep(pattern string) {
	if literal, ok := plain(pattern); ok {
		q.lines = append(q.lines, "|= "+quote(literal)) // a name may have it too: Match tells
		return
	}
	// A filter of a label is anchored, and its dot does not match line breaks.
	q.inLine(event.FieldMessage, &labels.Matcher{Type: labels.MatchRegexp, Value: "(?s:.*)(?:" + pattern + ")(?s:.*)"})
}

// plain returns what a pattern stands for if it stands for one text, which is in
// a line as it is in the message.
func plain(pattern string) (string, bool) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || re.Op != syntax.OpLiteral || re.Flags&syntax.FoldCase != 0 {
		return "", false
	}
	for _, c := range re.Rune {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return "", false
		}
	}
	return string(re.Rune), true
}

// named is a matcher as it is written for another name.
//
// Loki takes filters of structured metadata apart where they have alternatives, and forgets an
// empty one: | type=~"Warning|" does not find entries without a type, and | type=~"" finds all.
// Such patterns are written in a way that it evaluates as they are.
func named(m *labels.Matcher, name string) string {
	op, value := m.Type.String(), m.Value
	if empty := matchesEmpty(m); empty && value == "" {
		op = map[labels.MatchType]string{labels.MatchRegexp: "=", labels.MatchNotRegexp: "!="}[m.Type]
	} else if empty && value != ".*" {
		value = "(?:" + value + ")?"
	}
	return name + op + quote(value)
}

// matchesEmpty reports whether a matcher is of a pattern that matches the empty text.
func matchesEmpty(m *labels.Matcher) bool {
	if m.Type != labels.MatchRegexp && m.Type != labels.MatchNotRegexp {
		return false
	}
	ok, err := regexp.MatchString("^(?s:"+m.Value+")$", "")
	return ok && err == nil
}

// quote writes a string as LogQL and people read it best.
func quote(s string) string {
	if strings.ContainsAny(s, "\\\"") && strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
