package router

import (
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

// preempted returns a record as the watch delivers it.
func preempted() event.Record {
	return event.New(&corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "loki", Name: "ingester-3.17b3", UID: "e-1", ResourceVersion: "41",
			CreationTimestamp: metav1.Unix(1563535200, 0),
		},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "loki", Name: "ingester-3", UID: "p-1"},
		Reason:         "Preempted",
		Message:        "by team-a/querier-7\non node n-12",
		Source:         corev1.EventSource{Component: "default-scheduler", Host: "n-12"},
		LastTimestamp:  metav1.Unix(1563535200, 0),
		Count:          1,
		Type:           corev1.EventTypeWarning,
	})
}

func mustParse(t testing.TB, texts ...string) (ss Selectors) {
	t.Helper()
	for _, text := range texts {
		s, err := ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		ss = append(ss, s)
	}
	return ss
}

func TestSelectorMatchesFields(t *testing.T) {
	for _, tt := range []struct {
		name, selector string
		want           bool
	}{
		{"equal", `{type="Warning"}`, true},
		{"not equal", `{type!="Warning"}`, false},
		{"all matchers have to match", `{type="Warning", namespace="default"}`, false},
		{"one field may be named twice", `{name=~"ingester-.*", name!="ingester-4"}`, true},
		{"regexp", `{namespace!~"kube-.*"}`, true},
		{"a regexp is anchored at both ends", `{name=~"ingester"}`, false},
		{"a regexp of alternatives", `{reason=~"Killing|Preempted|Evicted"}`, true},
		{"the dot matches line breaks", `{message=~"by .* on node n-.*|by .*n-12"}`, true},
		{"the message", `{message=~".*querier.*"}`, true},
		{"the involved object's kind", `{kind="Pod"}`, true},
		{"the component", `{component="default-scheduler"}`, true},
		{"the node", `{node="n-12"}`, true},
		{"the Event's own reason, not the label", `{reason="Preempted"}`, true},
		{"not the reason's label", `{reason="other"}`, false},
		{"names in quotes, as Prometheus allows", `{"type"="Warning"}`, true},
		{"another kind of quotes", "{message=~`by [\\w/-]+\\n.*`}", true},
		{"line breaks, a last comma and a comment", "{\n  type=\"Warning\", # comment\n  kind='Pod',\n}", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := preempted()
			r.Decisions[0] = event.LabelDecision{Set: event.DefaultLabels, Kept: event.LabelNamespace}
			if got := mustParse(t, tt.selector).Match(&r); got != tt.want {
				t.Errorf("%s: got %t, want %t", tt.selector, got, tt.want)
			}
		})
	}
}

func TestMissingFieldIsEmpty(t *testing.T) {
	r := event.New(&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}})
	for selector, want := range map[string]bool{
		`{node=""}`:       true,
		`{node!="n-1"}`:   true,
		`{node!~"n-.*"}`:  true,
		`{node=~".+"}`:    false,
		`{node=~"|n-1"}`:  true,
		`{node!=""}`:      false,
		`{kind=~"Pod.*"}`: false,
	} {
		if got := mustParse(t, selector).Match(&r); got != want {
			t.Errorf("%s: got %t, want %t", selector, got, want)
		}
	}
}

func TestSelectorsAreAlternatives(t *testing.T) {
	r := preempted()
	for _, tt := range []struct {
		name       string
		selectors  Selectors
		match, any bool
	}{
		{"none", nil, true, false},
		{"one that matches", mustParse(t, `{kind="Pod"}`), true, true},
		{"one that does not", mustParse(t, `{kind="Node"}`), false, false},
		{"the second matches", mustParse(t, `{kind="Node"}`, `{kind="Pod"}`), true, true},
		{"neither matches", mustParse(t, `{kind="Node"}`, `{kind="Job"}`), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.selectors.Match(&r); got != tt.match {
				t.Errorf("Match: got %t, want %t", got, tt.match)
			}
			if got := tt.selectors.Any(&r); got != tt.any {
				t.Errorf("Any: got %t, want %t", got, tt.any)
			}
		})
	}
}

const validNames = "valid are namespace, kind, name, reason, type, component, node and message"

var badSelectors = []struct {
	name, selector, want string
}{
	{"nothing", "", `selector is empty; write one like {type="Warning"}`},
	{"blanks", " \n", `selector is empty; write one like {type="Warning"}`},
	{"no matcher", "{}", "selector `{}`: it has no matcher"},
	{"a field that selectors do not have", `{uid="x"}`, "selector `{uid=\"x\"}`: unknown name \"uid\"; " + validNames},
	{"unknown name in quotes", `{"a b"="x"}`, "selector `{\"a b\"=\"x\"}`: unknown name \"a b\"; " + validNames},
	{
		"a metric name", `up{type="Warning"}`,
		"selector `up{type=\"Warning\"}`: \"up\" is in the place of a metric name, and Events have none; write a selector like {type=\"Warning\"}",
	},
	{
		"no braces", `Warning`,
		"selector `Warning`: \"Warning\" is in the place of a metric name, and Events have none; write a selector like {type=\"Warning\"}",
	},
	{
		"__name__", `{__name__="up"}`,
		"selector `{__name__=\"up\"}`: \"up\" is in the place of a metric name, and Events have none; write a selector like {type=\"Warning\"}",
	},
	{
		"only a quoted name", `{"up"}`,
		"selector `{\"up\"}`: \"up\" is in the place of a metric name, and Events have none; write a selector like {type=\"Warning\"}",
	},
	{
		"bad regexp", `{name=~"a("}`,
		"selector `{name=~\"a(\"}`: 1:2: parse error: error parsing regexp: missing closing ): `a(`",
	},
	{
		"no quotes", `{type=Warning}`,
		"selector `{type=Warning}`: 1:7: parse error: unexpected identifier \"Warning\" in label matching, expected string",
	},
	{
		"trailing text", `{type="Warning"}[5m]`,
		"selector `{type=\"Warning\"}[5m]`: 1:17: parse error: unexpected \"[\"",
	},
	{
		"two selectors in one string", `{type="Warning"} or {kind="Node"}`,
		"selector `{type=\"Warning\"} or {kind=\"Node\"}`: 1:18: parse error: unexpected <op:or>",
	},
}

func TestInvalidSelector(t *testing.T) {
	for _, tt := range badSelectors {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseSelector(tt.selector)
			if err == nil {
				t.Fatalf("%q: no error", tt.selector)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestSelectorsInYAML(t *testing.T) {
	for _, tt := range []struct {
		name, yaml string
		want       []string
	}{
		{"one", `match: '{type="Warning"}'`, []string{`{type="Warning"}`}},
		{"a list", "match:\n- '{type=\"Warning\"}'\n- '{ kind = \"Node\" }'", []string{`{type="Warning"}`, `{ kind = "Node" }`}},
		{"blanks around it", `match: "\n {type='Warning'}\n"`, []string{`{type='Warning'}`}},
		{"an alias", "other: &w '{type=\"Warning\"}'\nmatch: [*w]", []string{`{type="Warning"}`}},
		{"an empty list", "match: []", nil},
		{"no value", "match:", nil},
		{"absent", "{}", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c struct {
				Match Selectors `yaml:"match"`
			}
			if err := yaml.Unmarshal([]byte(tt.yaml), &c); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range c.Match {
				got = append(got, s.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if again := throughYAML(t, c.Match); !slices.EqualFunc(again, c.Match, equal) {
				t.Errorf("round trip: got %v, want %v", again, c.Match)
			}
		})
	}
}

func TestInvalidSelectorsInYAML(t *testing.T) {
	for _, tt := range []struct {
		name, yaml string
		want       []string
	}{
		{"one", "\nmatch: '{}'", []string{"line 2: selector `{}`: it has no matcher"}},
		{"each of a list", "match:\n- '{type=\"Warning\"}'\n- '{}'\n-\n- [a]", []string{
			"line 3: selector `{}`: it has no matcher",
			`line 4: selector is empty; write one like {type="Warning"}`,
			"line 5: want a selector or a list of them",
		}},
		{"a mapping", "match: {type: Warning}", []string{"line 1: want a selector or a list of them"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c struct {
				Match Selectors `yaml:"match"`
			}
			err := yaml.Unmarshal([]byte(tt.yaml), &c)
			if err == nil {
				t.Fatal("no error")
			}
			if want := "yaml: unmarshal errors:\n  " + strings.Join(tt.want, "\n  "); err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

func throughYAML(t testing.TB, ss Selectors) (again Selectors) {
	t.Helper()
	b, err := yaml.Marshal(ss)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &again); err != nil {
		t.Fatalf("%s\n%s", err, b)
	}
	return again
}

// equal reports whether two selectors have the same text and matchers.
func equal(a, b Selector) bool {
	return a.text == b.text && slices.EqualFunc(a.matchers, b.matchers, func(a, b matcher) bool {
		return a.field == b.field && a.Matcher.String() == b.Matcher.String()
	})
}

func FuzzParseSelector(f *testing.F) {
	for _, tt := range badSelectors {
		f.Add(tt.selector)
	}
	for _, s := range []string{
		`{type="Warning", namespace!~"kube-.*"}`, `{"reason"='a\'b', }`, "{message=~`\\d+\n`}",
		`{name="\xff\u00e9"}`, "{name=\"\xff\"}", "{name=\"\x00\u0085\u2028\"}", "{kind=~\"(?i)po\\\\d\"}", "# c\n{node=\"\"}", "\n {node=\"\"}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%q: more than one line: %s", text, err)
			}
			return
		}
		r := preempted()
		s.Match(&r)
		again := throughYAML(t, Selectors{s})
		if len(again) != 1 || !equal(again[0], s) {
			t.Errorf("%q: round trip: %v", text, again)
		}
	})
}

var matchingSelectors = []struct{ name, selector string }{
	{"equal", `{type="Warning"}`},
	{"alternatives", `{reason=~"Pulled|Created|Preempted"}`},
	{"prefix", `{namespace!~"kube-.*", type="Warning"}`},
	{"contains", `{message=~".*querier.*"}`},
	{"general", `{message=~"by [a-z-]+/[a-z0-9-]+\\s+on node n-\\d+"}`},
}

func TestMatchingDoesNotAllocate(t *testing.T) {
	r := preempted()
	for _, tt := range matchingSelectors {
		t.Run(tt.name, func(t *testing.T) {
			ss := mustParse(t, tt.selector)
			if !ss.Match(&r) {
				t.Fatalf("%s does not match", tt.selector)
			}
			if n := testing.AllocsPerRun(100, func() { ss.Match(&r) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	r := preempted()
	for _, tt := range matchingSelectors {
		b.Run(tt.name, func(b *testing.B) {
			ss := mustParse(b, tt.selector)
			b.ReportAllocs()
			for b.Loop() {
				ss.Match(&r)
			}
		})
	}
}
