// Package query reads Events back and shows them as kubectl events does: from
// Loki or from files, of any range, in a table or as they were stored.
package query

import (
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

// Filter is what is asked for, as a person says it. What is empty does not
// matter.
type Filter struct {
	Namespace string   // the Event's own; of an object without a namespace, any
	For       string   // an object, as in pod/web-0
	Types     []string // any of them, such as Warning, in any case
	Reasons   []string // any of them
	Node      string   // the object, or from where it was reported
	Cluster   string   // a label
	Grep      string   // RE2, somewhere in the message
	Selector  string   // of fields and labels, as in {reason=~"Preempted|Evicted"}
}

// Selection is a Filter made ready.
type Selection struct {
	// Notes are for the person who asks: what the Filter was taken for.
	Notes []string

	matchers []*labels.Matcher
	grep     *regexp.Regexp

	groups    []string // of the object, any of them; empty: any
	namespace string   // of an object whose kind is none of Kubernetes' own; empty: any
}

// NewSelection says what is wrong with a filter in the words of its flags.
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

// selectObject selects the Events about an object in a namespace, and if its kind has no
// namespaces, in any. If its kind is not known, they may be in "default" as well,
// where client-go puts Events about objects without a namespace:
// https://github.com/kubernetes/client-go/blob/master/tools/record/event.go
func (s *Selection) selectObject(of, namespace string) error {
	o, err := parseObject(of)
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

// SeveralNamespaces reports whether Events are selected from a namespace and from
// "default", because the scope of an object's kind is not known.
func (s *Selection) SeveralNamespaces() bool { return s.namespace != "" }

// matchObject tells apart what the fields of a record do not, as far as the record
// has it: the API group and the namespace of the object.
func (s *Selection) matchObject(r *format.Record) bool {
	o := &r.Event.InvolvedObject
	if len(s.groups) > 0 && o.APIVersion != "" {
		group, _, ok := strings.Cut(o.APIVersion, "/")
		if !ok {
			group = "" // of v1
		}
		if !slices.Contains(s.groups, group) {
			return false
		}
	}
	return s.namespace == "" || !r.WholeEvent || o.Namespace == "" || o.Namespace == s.namespace
}

// selectTypes selects Events of any of the types: Kubernetes' own are written Normal
// and Warning, and others in any case.
func (s *Selection) selectTypes(types []string) error {
	var own, others []string
	for _, t := range types {
		switch strings.TrimSuffix(strings.ToLower(t), "s") {
		case "":
			return errors.New("a type is empty; write it as in Warning")
		case "normal":
			own = append(own, corev1.EventTypeNormal)
		case "warning":
			own = append(own, corev1.EventTypeWarning)
		default:
			others = append(others, regexp.QuoteMeta(t))
			s.Notes = append(s.Notes, fmt.Sprintf("--types: %q is neither Normal nor Warning; searching for Events of a type of that name", t))
		}
	}
	m := matchAny(event.FieldType, own)
	if len(others) > 0 {
		var err error
		if m, err = labels.NewMatcher(labels.MatchRegexp, event.FieldType.String(), "(?i:"+strings.Join(append(own, others...), "|")+")"); err != nil {
			return fmt.Errorf("%q cannot be a type", others)
		}
	}
	if m != nil {
		s.matchers = append(s.matchers, m)
	}
	return nil
}

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
		return nil, fmt.Errorf(`-l %#q: %w; write it as in {reason=~"Preempted|Evicted"}`, text, err)
	}
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			return nil, fmt.Errorf(`-l %#q: write it in braces, as in {reason=~"Preempted|Evicted"}`, text)
		}
	}
	return matchers, nil
}

// field returns the field of an Event that a name stands for; other names are
// labels.
func field(name string) (event.Field, bool) {
	f, ok := event.ParseField(name)
	return f, ok
}

// onlyLabels returns the names that are no fields of an Event.
func (s *Selection) onlyLabels() (names []string) {
	for _, m := range s.matchers {
		if _, ok := field(m.Name); !ok {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Match reports whether a record is asked for.
func (s *Selection) Match(r *format.Record) bool {
	for _, m := range s.matchers {
		value := ""
		if f, ok := field(m.Name); ok {
			value = r.Value(f)
		} else {
			value = r.Labels[m.Name]
		}
		if !m.Matches(value) {
			return false
		}
	}
	return s.matchObject(r) && (s.grep == nil || s.grep.MatchString(r.Event.Message))
}

// CheckFiles returns an error if labels are asked for, which files do not have.
func (s *Selection) CheckFiles() error {
	if names := s.onlyLabels(); len(names) > 0 {
		return fmt.Errorf("%s: no such field; Events in files have no labels", strings.Join(names, ", "))
	}
	return nil
}
