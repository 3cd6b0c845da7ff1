package loki

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
)

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

func mustLabels(t testing.TB, c Config, cluster string) *labelSet {
	t.Helper()
	l, err := newLabelSet(&c, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keepAll makes the decision of the intake while there are few streams.
func keepAll(r *event.Record, l *labelSet) {
	r.Decisions[0] = event.LabelDecision{Set: l.fields, Kept: l.fields}
}

func TestLabelsOfARecord(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"namespace": "namespace", "reason": "reason", "kind": "kind",
		"type": "type", "component": "component", "host": "node",
	}
	for _, tt := range []struct {
		name    string
		config  Config
		cluster string
		change  func(*event.Record)
		want    string
	}{
		{
			"namespace and reason by default",
			Config{Job: "hindsight"},
			"prod-eu-1",
			nil,
			`{cluster="prod-eu-1", job="hindsight", namespace="loki", reason="Preempted"}`,
		},
		{
			"no cluster",
			Config{Job: "hindsight"},
			"",
			nil,
			`{job="hindsight", namespace="loki", reason="Preempted"}`,
		},
		{
			"a reason that the intake did not keep",
			Config{Job: "hindsight"},
			"",
			func(r *event.Record) {
				r.Decisions[0] = event.LabelDecision{Set: event.DefaultLabels, Kept: event.LabelNamespace}
			},
			`{job="hindsight", namespace="loki", reason="other"}`,
		},
		{
			"fields that the intake did not keep are other, even if they are empty",
			Config{Job: "hindsight", Labels: all},
			"",
			func(r *event.Record) {
				r.Event.InvolvedObject.Kind = ""
				r.Decisions[0] = event.LabelDecision{Set: event.LabelSetOf(event.LabelFields...), Kept: event.DefaultLabels}
			},
			`{component="other", host="other", job="hindsight", kind="other", namespace="loki", reason="Preempted", type="other"}`,
		},
		{
			"more fields, sorted by label",
			Config{Job: "hindsight", Labels: all},
			"",
			nil,
			`{component="default-scheduler", host="n-12", job="hindsight", kind="Pod", namespace="loki", reason="Preempted", type="Warning"}`,
		},
		{
			"empty fields are omitted",
			Config{Job: "hindsight", Labels: all},
			"",
			func(r *event.Record) {
				r.Event.Source.Component, r.Event.Source.Host, r.Event.InvolvedObject.Kind = "", "", ""
			},
			`{job="hindsight", namespace="loki", reason="Preempted", type="Warning"}`,
		},
		{
			"external labels",
			Config{Job: "hindsight", ExternalLabels: map[string]string{"zone": "b", "env": `"x"` + "\n"}},
			"",
			nil,
			`{env="\"x\"\n", job="hindsight", namespace="loki", reason="Preempted", zone="b"}`,
		},
		{
			"no fields",
			Config{Job: "hindsight", Labels: map[string]string{}},
			"",
			nil,
			`{job="hindsight"}`,
		},
		{
			"values are quoted",
			Config{Job: "hindsight", Labels: map[string]string{"kind": "kind"}},
			"",
			func(r *event.Record) { r.Event.InvolvedObject.Kind = "a\"b\\c\n\x00é" },
			`{job="hindsight", kind="a\"b\\c\n\x00\u00e9"}`,
		},
		{
			"bytes that are not UTF-8 are replaced",
			Config{Job: "hindsight", Labels: map[string]string{"kind": "kind"}},
			"",
			func(r *event.Record) { r.Event.InvolvedObject.Kind = "a\xffb" },
			`{job="hindsight", kind="a_b"}`,
		},
		{
			"replacement characters are replaced",
			Config{Job: "hindsight", Labels: map[string]string{"kind": "kind"}},
			"",
			func(r *event.Record) { r.Event.InvolvedObject.Kind = "a\uFFFDb" },
			`{job="hindsight", kind="a_b"}`,
		},
		{
			"a long value is truncated between characters",
			Config{Job: "hindsight", Labels: map[string]string{"kind": "kind"}},
			"",
			func(r *event.Record) { r.Event.InvolvedObject.Kind = "a" + strings.Repeat("é", 2000) },
			`{job="hindsight", kind="a` + strings.Repeat(`\u00e9`, 1023) + `"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := preempted()
			if tt.change != nil {
				tt.change(&r)
			}
			l := mustLabels(t, tt.config, tt.cluster)
			if r.Decisions == (event.LabelDecisions{}) {
				keepAll(&r, l)
			}
			got := string(l.Append(nil, &r))
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			// Loki parses labels with Prometheus's parser.
			if _, err := parser.NewParser(parser.Options{}).ParseMetric(got); err != nil {
				t.Errorf("%s: %s", got, err)
			}
		})
	}
}

func TestAppendLabelsAppends(t *testing.T) {
	t.Parallel()
	r := preempted()
	l := mustLabels(t, Config{Job: "j"}, "")
	if got, want := string(l.Append([]byte("x"), &r)), `x{job="j", namespace="loki", reason="Preempted"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Values are quoted only if they need it.
func TestLabelsAreQuotedAsGoStrings(t *testing.T) {
	t.Parallel()
	for c := range rune(0x250) {
		value := "a" + string(c)
		if got, want := string(appendLabel(nil, "x", value)), "x="+strconv.QuoteToASCII(value); got != want {
			t.Errorf("%U: got %s, want %s", c, got, want)
		}
	}
}

func TestInvalidLabels(t *testing.T) {
	t.Parallel()
	many := func(n int, names ...string) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("l%d", i)] = "x"
		}
		for _, name := range names {
			m[name] = "x"
		}
		return m
	}
	external := func(name, value string) Config {
		return Config{Job: "j", ExternalLabels: map[string]string{name: value}}
	}
	field := func(name, field string) Config {
		return Config{Job: "j", Labels: map[string]string{name: field}}
	}
	const names = "a label's name is made of letters, digits and _, and does not begin with a digit"
	const fields = "; valid are namespace, reason, kind, type, component and node"
	for _, tt := range []struct {
		name    string
		config  Config
		cluster string
		want    string // empty: valid
	}{
		{"no job", Config{}, "c", `job is empty`},
		{"a long cluster", Config{Job: "j"}, strings.Repeat("c", 2049), `cluster: its value is longer than 2048 bytes`},
		{"an unknown field", field("pod", "pods"), "", `label "pod": "pods" cannot be a label` + fields},
		{"a field with too many values", field("pod", "name"), "", `label "pod": "name" cannot be a label` + fields},
		{"the message", field("m", "message"), "", `label "m": "message" cannot be a label` + fields},
		{"no field", field("pod", ""), "", `label "pod": "" cannot be a label` + fields},
		{"a bad name", field("a-b", "kind"), "", `label "a-b": ` + names},
		{"a name of UTF-8", field("é", "kind"), "", `label "é": ` + names},
		{"no name", field("", "kind"), "", `label "": ` + names},
		{"a reserved name", field("__kind", "kind"), "", `label "__kind": names that begin with __ are reserved`},
		{"one underscore is not reserved", field("_", "kind"), "", ""},
		{"a field as job", field("job", "component"), "", `label "job": the option "job" sets it`},
		{"an external cluster", external("cluster", "c"), "", `external label "cluster": the option "cluster" sets it`},
		{"an external bad name", external("1a", "x"), "", `external label "1a": ` + names},
		{"a long name", external(strings.Repeat("a", 1025), "x"), "", `external label "` + strings.Repeat("a", 1025) + `": its name is longer than 1024 bytes`},
		{"an empty value", external("env", ""), "", `external label "env": its value is empty`},
		{"a long value", external("env", strings.Repeat("x", 2049)), "", `external label "env": its value is longer than 2048 bytes`},
		{"the longest value", external("env", strings.Repeat("x", 2048)), "", ""},
		{"a value that is not UTF-8", external("env", "\xff"), "", `external label "env": its value is not valid UTF-8`},
		{"a value that Loki cannot parse", external("env", "a\uFFFD"), "", `external label "env": its value has a replacement character (U+FFFD), which Loki does not accept`},
		{"a name of a field's label", external("namespace", "x"), "", `external label "namespace": there is a label of that name already`},
		{"the name of a label that was replaced", Config{Job: "j", Labels: map[string]string{"kind": "kind"}, ExternalLabels: map[string]string{"namespace": "x"}}, "", ""},
		{"as many as Loki accepts", Config{Job: "j", ExternalLabels: many(12)}, "", ""},
		{"service_name is not counted", Config{Job: "j", ExternalLabels: many(12, "service_name")}, "", ""},
		{"one too many", Config{Job: "j", ExternalLabels: many(13)}, "", `16 labels, of which Loki by default accepts 15; job, cluster and external labels count`},
		{"one too many with cluster", Config{Job: "j", ExternalLabels: many(12)}, "c", `16 labels, of which Loki by default accepts 15; job, cluster and external labels count`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newLabelSet(&tt.config, tt.cluster)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestAppendingLabelsDoesNotAllocate(t *testing.T) {
	r := preempted()
	l := mustLabels(t, Config{Job: "hindsight", ExternalLabels: map[string]string{"env": "x"}}, "prod-eu-1")
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { l.Append(buf, &r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppendLabels(b *testing.B) {
	r := preempted()
	l := mustLabels(b, Config{Job: "hindsight"}, "prod-eu-1")
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		l.Append(buf, &r)
	}
}

func FuzzLabelsCanBeParsed(f *testing.F) {
	for _, s := range []string{"Pod", "", "a\"b\\", "\xff\uFFFD", "\x00\n\u0085\u2028é", strings.Repeat("é", 2000)} {
		f.Add(s)
	}
	l := mustLabels(f, Config{Job: "j", Labels: map[string]string{"kind": "kind", "type": "type"}}, "")
	p := parser.NewParser(parser.Options{})
	f.Fuzz(func(t *testing.T, value string) {
		r := preempted()
		r.Event.InvolvedObject.Kind = value
		keepAll(&r, l)
		text := string(l.Append(nil, &r))
		parsed, err := p.ParseMetric(text)
		if err != nil {
			t.Fatalf("%s: %s", text, err)
		}
		valid := strings.ReplaceAll(strings.ToValidUTF8(value, "_"), "\uFFFD", "_")
		got := parsed.Get("kind")
		// Loki parses its own rendering of the labels again.
		if again, err := p.ParseMetric(parsed.String()); err != nil || !labels.Equal(again, parsed) {
			t.Errorf("%s cannot be parsed again: %v", parsed, err)
		}
		if len(value) <= 2048 && got != valid || len(got) > 2048 || len(value) <= 2048 && !strings.HasPrefix(valid, got) {
			t.Errorf("got %q, want %q or its first 2048 bytes", got, valid)
		}
		if parsed.Get("job") != "j" || parsed.Get("type") != "Warning" {
			t.Errorf("other labels changed: %s", text)
		}
	})
}
