package timeline

import (
	"regexp"
	"strings"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/objects"
)

// scope is what the first reading finds.
type scope struct {
	namespace string         // of its objects; empty: any
	names     *regexp.Regexp // of its objects; nil: any
	name      string         // of the selected object
	node      string         // that its Events are about or from, and that its pods ran on; empty: any

	object   *query.Selection // Events about the selected object; nil: no object is selected
	selected objects.Object   // if its kind is built in and its namespace known

	shown *query.Selection // narrows what is visited
	base  *query.Selection // of every reading: the streams
}

func newScope(f query.Filter) (*scope, error) {
	narrow := f
	narrow.Namespace, narrow.For = "", ""
	s := &scope{namespace: f.Namespace}
	kind, name, builtIn := query.BuiltIn(f.For)
	if builtIn && kind == "Node" { // a node's story is that of its pods
		f.For, f.Node, narrow.Node = "", name, ""
		if s.namespace != "" {
			s.namespace = ""
		}
	}
	if f.For == "" && f.Node != "" {
		s.node, narrow.Node = f.Node, ""
	}
	var err error
	if s.shown, err = query.NewSelection(narrow); err != nil {
		return nil, err
	}
	s.base = s.shown.Scope()
	if f.For == "" {
		return s, nil
	}
	if s.object, err = query.NewSelection(query.Filter{Namespace: f.Namespace, For: f.For}); err != nil {
		return nil, err
	}
	if !builtIn {
		_, name, _ = strings.Cut(f.For, "/")
	} else if query.ClusterScoped(f.For) {
		s.namespace = ""
		s.selected = objects.New(kind, "", name)
	} else if f.Namespace != "" {
		s.selected = objects.New(kind, f.Namespace, name)
	}
	s.name = name
	s.names = regexp.MustCompile("^(?:" + namesOf(kind, name) + ")$")
	return s, nil
}

// longestOwner is the length of the longest name of a Deployment whose pods' names contain it whole:
// names of pods are cut at 63 characters.
const longestOwner = 63 - len("-0123456789-01234")

// namesOf returns a pattern for the names of an object, of what it owns and of its owners.
func namesOf(kind, name string) string {
	patterns := []string{regexp.QuoteMeta(name)}
	for i := range len(name) { // web-79b5894fc8-f4jw8: web-79b5894fc8, web
		if name[i] == '-' && i > 0 {
			patterns = append(patterns, regexp.QuoteMeta(name[:i]))
		}
	}
	if kind == "Pod" {
		return strings.Join(patterns, "|")
	}
	prefix := name + "-"
	if len(name) > longestOwner {
		prefix = name[:longestOwner]
	}
	patterns = append(patterns, regexp.QuoteMeta(prefix)+".*", regexp.QuoteMeta("keda-hpa-"+name))
	if kind == "StatefulSet" || kind == "" {
		patterns = append(patterns, ".*-"+regexp.QuoteMeta(name)+"-[0-9]+") // claims
	}
	return strings.Join(patterns, "|")
}

// selections returns the Selections of the first reading.
func (s *scope) selections() ([]*query.Selection, error) {
	in := s.base
	if s.namespace != "" {
		in = in.WithAny(event.FieldNamespace, s.namespace)
	}
	switch {
	case s.node != "":
		return []*query.Selection{
			in.WithAny(event.FieldNode, s.node),
			// The scheduler and the node controller name the node in the message alone.
			in.WithAny(event.FieldReason, "Scheduled", "Preempted", "NodeControllerEviction").WithText(s.node),
		}, nil
	case s.names != nil:
		if s.object.SeveralNamespaces() { // the kind may be cluster-scoped
			in = s.base.WithAny(event.FieldNamespace, s.namespace, "default")
		}
		text := s.names.String()
		named, err := in.WithNames(text[len("^(?:"):len(text)-len(")$")], s.name)
		return []*query.Selection{named}, err
	}
	return []*query.Selection{in}, nil
}

// SelectNamed returns a Selection of the Events that f selects, about the objects that have the name of
// f.For or one that an owned object would have: of these, Gather finds out which are owned.
func SelectNamed(f query.Filter) (*query.Selection, error) {
	s, err := newScope(f)
	if err != nil {
		return nil, err
	}
	s.base = s.shown
	all, err := s.selections()
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// covers reports whether the first reading found all Events about an object.
func (s *scope) covers(o objects.Object) bool {
	return s.node == "" && (s.namespace == "" || s.namespace == o.Namespace) && (s.names == nil || s.names.MatchString(o.Name))
}
