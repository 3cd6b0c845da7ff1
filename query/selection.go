// Package query finds stored Events and prints them: from Loki or from files, of any time range, as
// kubectl events prints them or in one of the line formats.
//
//	Filter ── NewSelection ──> Selection ──> Source ──> entries ──> Run ──> records ──> Printer
//	(flags)                    (LogQL,       (Loki,                 (parse, match,      (table, json,
//	                            Match)        Files)                 latest states)      yaml, text, …)
//
// Selection decides which Events match, Source where their entries are read, Run which of their
// states are printed, and Printer how. A new output is a Printer, a new place a Source; a view that
// combines Events, such as a timeline, belongs beside Run: it reads a Source and prints by itself.
package query

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
)

// Filter holds the flags that select Events. Empty fields select all.
type Filter struct {
	Namespace string   // of the Event; ignored for an object without a namespace
	For       string   // an object, as in pod/web-0
	Types     []string // any of them, such as Warning; case-insensitive
	Reasons   []string // any of them
	Node      string   // the object itself, or the node of its reporter
	Cluster   string   // the label cluster
	Grep      string   // an RE2 regular expression, found anywhere in the message
	Selector  string   // of fields and labels, as in {reason=~"Preempted|Evicted"}
}

// Selection is a parsed Filter.
type Selection struct {
	// Notes tell the user how the Filter was interpreted.
	Notes []string

	matchers []*labels.Matcher
	grep     *regexp.Regexp
	ofNames  *ofNames // nil: any object

	groups    []string // API groups of the object, any of them; empty: any
	namespace string   // of an object of a kind that is not built in; empty: any
}

// NewSelection parses a Filter. Its errors name the flag.
func NewSelection(f Filter) (*Selection, error) {
	s := &Selection{}
	equal := func(name, value string) {
		if value != "" {
			s.matchers = append(s.matchers, labels.MustNewMatcher(labels.MatchEqual, name, value))
		}
	}
	equal("cluster", f.Cluster)
	if f.For == "" {
		equal(event.FieldNamespace.String(), f.Namespace)
	} else if err := s.selectObject(f.For, f.Namespace); err != nil {
		return nil, fmt.Errorf("--for: %w", err)
	}
	if err := s.selectTypes(f.Types); err != nil {
		return nil, fmt.Errorf("--types: %w", err)
	}
	if m := matchAny(event.FieldReason, f.Reasons); m != nil {
		s.matchers = append(s.matchers, m)
	}
	equal(event.FieldNode.String(), f.Node)
	if f.Selector != "" {
		matchers, err := parseSelector(f.Selector)
		if err != nil {
			return nil, err
		}
		s.matchers = append(s.matchers, matchers...)
	}
	if f.Grep != "" {
		var err error
		if s.grep, err = regexp.Compile(f.Grep); err != nil {
			return nil, fmt.Errorf("--grep: %w", err)
		}
	}
	return s, nil
}

// selectObject selects the Events about an object in a namespace; in any namespace if its kind is
// cluster-scoped. For an unknown kind it also selects those in "default", where client-go writes
// Events about cluster-scoped objects:
// https://github.com/kubernetes/client-go/blob/master/tools/record/event.go
func (s *Selection) selectObject(name, namespace string) error {
	o, err := parseObject(name)
	if err != nil {
		return err
	}
	var in []string
	switch {
	case namespace == "" || o.cluster:
	case o.known || namespace == metav1.NamespaceDefault:
		in = []string{namespace}
	default:
		in = []string{namespace, metav1.NamespaceDefault}
		s.namespace = namespace
	}
	if m := matchAny(event.FieldNamespace, in); m != nil {
		s.matchers = append(s.matchers, m)
	}
	s.groups = o.groups
	s.matchers = append(s.matchers, o.kind, labels.MustNewMatcher(labels.MatchEqual, event.FieldName.String(), o.name))
	return nil
}

// SeveralNamespaces reports whether Events are selected from a namespace and from "default",
// because the scope of the object's kind is unknown.
func (s *Selection) SeveralNamespaces() bool { return s.namespace != "" }

// matchObject checks the API group and the namespace of the object, which are not fields, as far as
// the record has them.
func (s *Selection) matchObject(r *format.Record) bool {
	o := &r.Event.InvolvedObject
	if len(s.groups) > 0 && o.APIVersion != "" {
		group, _, ok := strings.Cut(o.APIVersion, "/")
		if !ok {
			group = "" // v1
		}
		if !slices.Contains(s.groups, group) {
			return false
		}
	}
	return s.namespace == "" || !r.WholeEvent || o.Namespace == "" || o.Namespace == s.namespace
}

// selectTypes selects Events of any of the types, in any case. Normal and Warning, also in the
// plural, are matched exactly, others by a case-insensitive regular expression.
func (s *Selection) selectTypes(types []string) error {
	var builtIn, others []string
	for _, t := range types {
		switch strings.TrimSuffix(strings.ToLower(t), "s") {
		case "":
			return errors.New("a type is empty; an example is Warning")
		case "normal":
			builtIn = append(builtIn, corev1.EventTypeNormal)
		case "warning":
			builtIn = append(builtIn, corev1.EventTypeWarning)
		default:
			others = append(others, regexp.QuoteMeta(t))
			s.Notes = append(s.Notes, fmt.Sprintf("--types: %q is neither Normal nor Warning; searching for it as a custom type", t))
		}
	}
	m := matchAny(event.FieldType, builtIn)
	if len(others) > 0 {
		var err error
		if m, err = labels.NewMatcher(labels.MatchRegexp, event.FieldType.String(), "(?i:"+strings.Join(append(builtIn, others...), "|")+")"); err != nil {
			return fmt.Errorf("%q is not a valid type", others)
		}
	}
	if m != nil {
		s.matchers = append(s.matchers, m)
	}
	return nil
}

// Scope returns a Selection of everything in the streams of s: with its conditions for labels, such as
// cluster, and none for fields.
func (s *Selection) Scope() *Selection {
	scope := &Selection{}
	for _, m := range s.matchers {
		if _, ok := field(m.Name); !ok {
			scope.matchers = append(scope.matchers, m)
		}
	}
	return scope
}

// WithAny returns a copy of s with the condition that a field has one of the values.
func (s *Selection) WithAny(f event.Field, values ...string) *Selection {
	return s.with(matchAny(f, values))
}

// WithPattern returns a copy of s with the condition that a regular expression matches a whole field.
func (s *Selection) WithPattern(f event.Field, pattern string) (*Selection, error) {
	m, err := labels.NewMatcher(labels.MatchRegexp, f.String(), pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	return s.with(m), nil
}

// ofNames selects objects by their name or by the recorded name of their workload.
type ofNames struct {
	name     *labels.Matcher
	workload string
}

// WithNames returns a copy of s with the condition that a regular expression matches the whole name
// of the object, or that its recorded workload has the given name.
func (s *Selection) WithNames(pattern, workload string) (*Selection, error) {
	m, err := labels.NewMatcher(labels.MatchRegexp, event.FieldName.String(), pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", event.FieldName, err)
	}
	other := *s
	other.ofNames = &ofNames{m, workload}
	return &other, nil
}

// WithText returns a copy of s with the condition that the message contains a text.
func (s *Selection) WithText(text string) *Selection {
	other := *s
	other.grep = regexp.MustCompile(regexp.QuoteMeta(text))
	return &other
}

func (s *Selection) with(m *labels.Matcher) *Selection {
	other := *s
	if m != nil {
		other.matchers = append(slices.Clip(s.matchers), m)
	}
	return &other
}

// matchAny returns a matcher for any of the values, nil for none.
func matchAny(f event.Field, values []string) *labels.Matcher {
	switch len(values) {
	case 0:
		return nil
	case 1:
		return labels.MustNewMatcher(labels.MatchEqual, f.String(), values[0])
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return labels.MustNewMatcher(labels.MatchRegexp, f.String(), strings.Join(quoted, "|"))
}

var selectors = parser.NewParser(parser.Options{})

func parseSelector(text string) ([]*labels.Matcher, error) {
	matchers, err := selectors.ParseMetricSelector(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf(`-l %#q: %w; an example is {reason=~"Preempted|Evicted"}`, text, err)
	}
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			return nil, fmt.Errorf(`-l %#q: braces are missing; an example is {reason=~"Preempted|Evicted"}`, text)
		}
	}
	return matchers, nil
}

// field returns the field of that name; other names are labels or attributes. The workload is an
// attribute.
func field(name string) (event.Field, bool) {
	f, ok := event.ParseField(name)
	return f, ok && f != event.FieldWorkloadKind && f != event.FieldWorkloadName
}

// labelNames returns the names of matchers that are not fields.
func (s *Selection) labelNames() (names []string) {
	for _, m := range s.matchers {
		if _, ok := field(m.Name); !ok {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Match reports whether a record is selected.
func (s *Selection) Match(r *format.Record) bool {
	for _, m := range s.matchers {
		value := ""
		if f, ok := field(m.Name); ok {
			value = r.Value(f)
		} else {
			value = cmp.Or(r.Attribute(m.Name), r.Labels[m.Name])
		}
		if !m.Matches(value) {
			return false
		}
	}
	if n := s.ofNames; n != nil && !n.name.Matches(r.Value(event.FieldName)) && r.Value(event.FieldWorkloadName) != n.workload {
		return false
	}
	return s.matchObject(r) && (s.grep == nil || s.grep.MatchString(r.Event.Message))
}

// CheckFiles returns an error if the Selection has a label that Loki has, and files do not have.
func (s *Selection) CheckFiles() error {
	for _, name := range s.labelNames() {
		if name == "cluster" || name == "job" {
			return fmt.Errorf("%s: Events in files have no labels", name)
		}
	}
	return nil
}
