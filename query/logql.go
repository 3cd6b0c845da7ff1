package query

import (
	"cmp"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// LogQL returns the query that finds the selected Events; it can be pasted into Grafana. It omits
// conditions that the layout cannot express: then it finds more Events than Match accepts.
func (s *Selection) LogQL(l Layout) string {
	q := builder{layout: l, stream: s.fixedLabels(l)}
	for _, m := range s.matchers {
		if f, ok := field(m.Name); ok {
			q.add(f, m)
		} else {
			q.addAttribute(m)
		}
	}
	if s.ofNames != nil {
		q.addNames(s.ofNames)
	}
	if s.grep != nil {
		q.addGrep(s.grep.String())
	}
	return q.String()
}

// statesLogQL returns a query that finds the same entries as LogQL, or only entries of Events with
// these uids. If Match needs no field of the line, the entries are reduced to the fields that it
// needs and a short line with uid and version.
func (s *Selection) statesLogQL(l Layout, uids []string) string {
	query := s.WithAny(event.FieldEventUID, uids...).LogQL(l)
	if !l.Metadata || s.grep != nil || s.ofNames != nil {
		return query
	}
	keep := map[string]bool{"job": true} // keep requires at least one name
	for _, m := range s.matchers {
		f, ok := field(m.Name)
		if !ok {
			if !l.isLabel(m.Name) && l.attributeLabel(m.Name) == "" && !l.Metadata {
				return query
			}
			keep[cmp.Or(l.attributeLabel(m.Name), m.Name)], keep[event.FullPrefix+m.Name] = true, true
			continue
		}
		switch label := l.label(f); {
		case label != "":
			keep[label] = true
			if full := f.Full(); full != 0 { // for entries whose label is Other
				keep[full.String()] = true
			}
		case f.IsMetadata():
			keep[f.String()] = true
		default: // in the line
			return query
		}
	}
	return query + ` | line_format "eventRV={{.event_version}} event_uid={{.event_uid}}" | keep ` + strings.Join(sortedKeys(keep), ", ")
}

// Streams returns a selector for all streams of the sink, with the labels of the Selection.
func (s *Selection) Streams(l Layout) string {
	stream := s.fixedLabels(l)
	for _, m := range s.matchers {
		if _, ok := field(m.Name); !ok && l.isLabel(m.Name) {
			stream = append(stream, named(m, m.Name))
		}
	}
	return "{" + strings.Join(stream, ", ") + "}"
}

// fixedLabels returns matchers for the labels that all streams of the sink have, except those that
// the Selection matches itself.
func (s *Selection) fixedLabels(l Layout) (matchers []string) {
	own := s.labelNames()
	add := func(name, value string) {
		if value != "" && !slices.Contains(own, name) {
			matchers = append(matchers, name+"="+quote(value))
		}
	}
	add("job", l.Job)
	for _, name := range sortedKeys(l.Fixed) {
		add(name, l.Fixed[name])
	}
	return matchers
}

// builder builds a query. The fields are in the order of its stages.
type builder struct {
	layout Layout
	stream []string // label matchers
	lines  []string // line filters
	stages []string // filters of structured metadata
	parsed []string // expressions of a parser, as in name="key"
	after  []string // filters of parsed keys
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

// add adds a condition for a field where the layout stores it.
func (q *builder) add(f event.Field, m *labels.Matcher) {
	label := q.layout.label(f)
	switch {
	case label != "" && f.Full() != 0:
		q.addLimited(m, label, f.Full().String(), func() { q.addInLine(f, m) })
	case label != "":
		q.stream = append(q.stream, named(m, label))
	case q.layout.Metadata && f.IsMetadata():
		q.stages = append(q.stages, named(m, m.Name))
	default:
		q.addInLine(f, m)
	}
}

// addAttribute adds a condition for a name that is no field: a label, or an attribute.
func (q *builder) addAttribute(m *labels.Matcher) {
	l := q.layout
	inLine := func() {
		key := map[format.Format]string{format.Logfmt: m.Name, format.JSON: m.Name, format.EventRouter: "attributes." + m.Name}[l.Format]
		if key != "" {
			q.addParsed("attribute_"+m.Name, key)
			q.after = append(q.after, named(m, "attribute_"+m.Name))
		}
	}
	switch label := l.attributeLabel(m.Name); {
	case label != "":
		q.addLimited(m, label, event.FullPrefix+m.Name, inLine)
	case l.isLabel(m.Name):
		q.stream = append(q.stream, named(m, m.Name))
	case l.Metadata:
		q.stages = append(q.stages, named(m, m.Name))
	default:
		inLine()
	}
}

// addNames adds a condition for the name of the object or of its workload. Without metadata, it is
// for the name of the object alone.
func (q *builder) addNames(n *ofNames) {
	if !q.layout.Metadata {
		q.add(event.FieldName, n.name)
		return
	}
	workload := event.FieldWorkloadName.String()
	stage := named(n.name, n.name.Name)
	if label := q.layout.attributeLabel(workload); label != "" {
		stage += " or " + label + "=" + quote(n.workload)
		workload = event.FullPrefix + workload
	}
	q.stages = append(q.stages, stage+" or "+workload+"="+quote(n.workload))
}

// addLimited adds a condition for a label of limited cardinality: where the label is "other", the
// value is in the metadata full, or in the line.
func (q *builder) addLimited(m *labels.Matcher, label, full string, inLine func()) {
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
			inLine()
		}
	default:
		if m.Matches(event.OtherLabel) {
			q.stream = append(q.stream, named(m, label))
		}
		if q.layout.Metadata {
			q.stages = append(q.stages, named(m, full))
		} else {
			inLine()
		}
	}
}

// addInLine adds a condition for a key of the line. The extracted label has a name that no other
// label has.
func (q *builder) addInLine(f event.Field, m *labels.Matcher) {
	key, ok := inLine[q.layout.Format][f]
	if !ok {
		return
	}
	name := "event_" + strings.TrimPrefix(f.String(), "event_")
	if f == event.FieldEventUID || f == event.FieldEventVersion {
		name = "own_" + f.String()
	}
	q.addParsed(name, key)
	q.after = append(q.after, named(m, name))
}

func (q *builder) addParsed(name, key string) {
	if p := name + "=" + quote(key); !slices.Contains(q.parsed, p) {
		q.parsed = append(q.parsed, p)
	}
}

// addGrep adds a condition for the message. Text that a line never escapes is a line filter; for
// other patterns the message is extracted first.
func (q *builder) addGrep(pattern string) {
	if text, ok := literal(pattern); ok {
		q.lines = append(q.lines, "|= "+quote(text)) // may match another field: Match checks the message
		return
	}
	// Label filters are anchored, and their dot does not match line breaks.
	q.addInLine(event.FieldMessage, &labels.Matcher{Type: labels.MatchRegexp, Value: "(?s:.*)(?:" + pattern + ")(?s:.*)"})
}

// literal returns the text of a pattern that matches only one text, if no line format escapes it.
func literal(pattern string) (string, bool) {
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

// named formats a matcher with another name.
//
// Loki splits the alternatives of a filter for structured metadata and loses an empty one: |
// type=~"Warning|" does not find entries without a type, and | type=~"" finds all. Such patterns
// are rewritten so that Loki does not split them.
func named(m *labels.Matcher, name string) string {
	op, value := m.Type.String(), m.Value
	if empty := matchesEmpty(m); empty && value == "" {
		op = map[labels.MatchType]string{labels.MatchRegexp: "=", labels.MatchNotRegexp: "!="}[m.Type]
	} else if empty && value != ".*" {
		value = "(?:" + value + ")?"
	}
	return name + op + quote(value)
}

// matchesEmpty reports whether a matcher has a regular expression that matches the empty string.
func matchesEmpty(m *labels.Matcher) bool {
	if m.Type != labels.MatchRegexp && m.Type != labels.MatchNotRegexp {
		return false
	}
	ok, err := regexp.MatchString("^(?s:"+m.Value+")$", "")
	return ok && err == nil
}

// quote quotes a string for LogQL, with backquotes if that avoids escapes.
func quote(s string) string {
	if strings.ContainsAny(s, "\\\"") && strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}
