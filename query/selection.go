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

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query/line"
)

// Filter is what is asked for, as a person says it. What is empty does not
// matter.
type Filter struct {
	Namespace string   // the Event's own
	For       string   // an object, as in pod/web-0
	Types     []string // any of them, such as Warning
	Reasons   []string // any of them
	Node      string   // the object, or from where it was reported
	Cluster   string   // a label
	Grep      string   // RE2, somewhere in the message
	Selector  string   // of fields and labels, as in {reason=~"Preempted|Evicted"}
}

// Selection is a Filter made ready.
type Selection struct {
	matchers []*labels.Matcher
	grep     *regexp.Regexp
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
	equal(event.FieldNamespace.String(), f.Namespace)
	if f.For != "" {
		kind, name, err := object(f.For)
		if err != nil {
			return nil, fmt.Errorf("--for: %w", err)
		}
		s.matchers = append(s.matchers, kind)
		equal(event.FieldName.String(), name)
	}
	for i, t := range f.Types {
		switch strings.ToLower(t) {
		case "normal", "warning":
			f.Types[i] = strings.ToUpper(t[:1]) + strings.ToLower(t[1:])
		default:
			return nil, fmt.Errorf("--types: %q is no type of Event; they are Normal and Warning", t)
		}
	}
	if m := oneOf(event.FieldType, f.Types); m != nil {
		s.matchers = append(s.matchers, m)
	}
	if m := oneOf(event.FieldReason, f.Reasons); m != nil {
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

func oneOf(f event.Field, values []string) *labels.Matcher {
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
func (s *Selection) Match(r *line.Record) bool {
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
	return s.grep == nil || s.grep.MatchString(r.Event.Message)
}

// kinds are those of Kubernetes itself, by the names that kubectl knows them by.
var kinds = map[string]string{
	"po": "Pod", "pod": "Pod", "no": "Node", "node": "Node", "ns": "Namespace", "namespace": "Namespace",
	"svc": "Service", "service": "Service", "ep": "Endpoints", "endpoints": "Endpoints", "endpointslice": "EndpointSlice",
	"deploy": "Deployment", "deployment": "Deployment", "rs": "ReplicaSet", "replicaset": "ReplicaSet",
	"sts": "StatefulSet", "statefulset": "StatefulSet", "ds": "DaemonSet", "daemonset": "DaemonSet",
	"rc": "ReplicationController", "replicationcontroller": "ReplicationController",
	"job": "Job", "cj": "CronJob", "cronjob": "CronJob", "hpa": "HorizontalPodAutoscaler", "horizontalpodautoscaler": "HorizontalPodAutoscaler",
	"pdb": "PodDisruptionBudget", "poddisruptionbudget": "PodDisruptionBudget",
	"pvc": "PersistentVolumeClaim", "persistentvolumeclaim": "PersistentVolumeClaim",
	"pv": "PersistentVolume", "persistentvolume": "PersistentVolume", "sc": "StorageClass", "storageclass": "StorageClass",
	"ing": "Ingress", "ingress": "Ingress", "ingresses": "Ingress", "netpol": "NetworkPolicy", "networkpolicy": "NetworkPolicy", "networkpolicies": "NetworkPolicy",
	"cm": "ConfigMap", "configmap": "ConfigMap", "secret": "Secret", "sa": "ServiceAccount", "serviceaccount": "ServiceAccount",
	"quota": "ResourceQuota", "resourcequota": "ResourceQuota", "lease": "Lease", "ev": "Event", "event": "Event",
}

// clusterScoped are those of them whose objects are in no namespace. Events about
// them are in "default".
var clusterScoped = []string{"Node", "Namespace", "PersistentVolume", "StorageClass"}

// object reads kind/name. A kind that is not known matches whatever is written
// like it, in the singular or the plural.
func object(s string) (kind *labels.Matcher, name string, err error) {
	of, name, ok := strings.Cut(s, "/")
	if !ok || of == "" || name == "" || strings.Contains(name, "/") {
		return nil, "", fmt.Errorf("%q is no object; write it as in pod/web-0", s)
	}
	of, _, _ = strings.Cut(strings.ToLower(of), ".") // certificates.cert-manager.io
	if k, ok := knownKind(of); ok {
		return labels.MustNewMatcher(labels.MatchEqual, event.FieldKind.String(), k), name, nil
	}
	m, err := labels.NewMatcher(labels.MatchRegexp, event.FieldKind.String(), "(?i:"+regexp.QuoteMeta(strings.TrimSuffix(of, "s"))+"(s|es)?)")
	if err != nil {
		return nil, "", errors.New("it cannot be the name of a kind")
	}
	return m, name, nil
}

func knownKind(s string) (string, bool) {
	if k, ok := kinds[s]; ok {
		return k, true
	}
	k, ok := kinds[strings.TrimSuffix(s, "s")]
	return k, ok
}

// HomeOf returns the namespace of Events about an object that is in none, and
// false for one that is in some.
func HomeOf(object string) (namespace string, ok bool) {
	of, _, _ := strings.Cut(object, "/")
	k, _ := knownKind(strings.ToLower(of))
	return "default", slices.Contains(clusterScoped, k)
}

// CheckFiles returns an error if labels are asked for, which files do not have.
func (s *Selection) CheckFiles() error {
	if names := s.onlyLabels(); len(names) > 0 {
		return fmt.Errorf("%s: no such field; Events in files have no labels", strings.Join(names, ", "))
	}
	return nil
}
