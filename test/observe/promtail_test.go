package observe

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jmespath/go-jmespath"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/router"
	"github.com/hindsight-events/hindsight/sink/loki"
)

// The Promtail pipeline in docs/migrating.md, written for eventrouter, works with Hindsight's
// lines; and the configuration that replaces it drops the same Events and gives the others the same
// labels.
func TestPromtailPipeline(t *testing.T) {
	pipeline := documentedPipeline(t)
	c, err := config.Load("../../examples/migrating/promtail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := loki.New(*c.Sinks[0].Loki, loki.Options{Name: "loki", Cluster: c.Cluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })

	events := recorded(t)
	inputs, err := filepath.Glob("../../event/testdata/*/input.json")
	if err != nil || len(inputs) < 10 {
		t.Fatalf("%d examples: %v", len(inputs), err)
	}
	for _, path := range inputs {
		var e corev1.Event
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		events = append(events, e)
	}

	intake := router.NewIntake(router.IntakeOptions{})
	fields, _ := sink.Labels()
	intake.SetRules(nil, nil, router.Levels{}, 2500, []router.SinkLabels{{Fields: fields}})
	dropped, compared := 0, 0
	for i := range events {
		e := &events[i]
		r := event.New(e)
		// As stdout and files have it, of which Promtail reads the one or the other.
		line := format.Encoder{Format: format.EventRouter, Standalone: true}.Append(nil, &r)
		got, drop := pipeline.apply(t, line)
		want := map[string]string{"namespace": e.Namespace, "reason": e.Reason, "type": e.Type, "kind": e.InvolvedObject.Kind}
		maps.DeleteFunc(want, func(_, value string) bool { return value == "" })
		if !maps.Equal(got, want) {
			t.Errorf("the pipeline labels %s\nwith %q, want %q", line, got, want)
		}
		if drop != c.Drop.Any(&r) {
			t.Errorf("the pipeline drops %s: %v; the converted configuration: %v", line, drop, !drop)
		}
		if drop {
			dropped++
			continue
		}
		kept := intake.Apply([]event.Record{r})
		if labelled := event.LabelSetOf(event.FieldReason); kept[0].KeptLabels(labelled) != labelled {
			continue // a reason that is invalid as a label is "other" (docs/configuration.md)
		}
		labels := streamLabels(t, sink.AppendStream(nil, &kept[0]))
		for name, value := range map[string]string{"cluster": c.Cluster, "job": c.Sinks[0].Loki.Job} {
			if labels[name] != value {
				t.Errorf("the label %s is %q, want %q", name, labels[name], value)
			}
			delete(labels, name)
		}
		if !maps.Equal(labels, got) {
			t.Errorf("the sink labels %s\nwith %q, the pipeline with %q", line, labels, got)
		}
		compared++
	}
	if dropped == 0 || compared < 500 {
		t.Errorf("%d Events are dropped and the labels of %d compared: the test tests little", dropped, compared)
	}
}

// stages is a Promtail pipeline with the stages that the documents use.
type stages []struct {
	JSON *struct {
		Expressions map[string]string
	} `yaml:"json"`
	Labels map[string]*string
	Drop   *struct {
		Source     []string
		Separator  string
		Expression string
	}
}

// documentedPipeline reads the pipeline in docs/migrating.md.
func documentedPipeline(t *testing.T) stages {
	t.Helper()
	text, err := os.ReadFile("../../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```[a-z]*\n(pipeline_stages:\n.*?)^```$").FindSubmatch(text)
	if m == nil {
		t.Fatal("docs/migrating.md has no block of pipeline_stages")
	}
	var doc struct {
		Stages stages `yaml:"pipeline_stages"`
	}
	d := yaml.NewDecoder(strings.NewReader(string(m[1])))
	d.KnownFields(true) // a stage that is not known here would not be applied
	if err := d.Decode(&doc); err != nil {
		t.Fatalf("docs/migrating.md: %v", err)
	}
	var kinds []string
	for _, s := range doc.Stages {
		switch {
		case s.JSON != nil:
			kinds = append(kinds, "json")
		case s.Labels != nil:
			kinds = append(kinds, "labels")
		case s.Drop != nil:
			kinds = append(kinds, "drop")
		}
	}
	if !slices.Equal(kinds, []string{"json", "labels", "drop"}) {
		t.Fatalf("the stages are %q", kinds)
	}
	return doc.Stages
}

// apply applies the stages to a line, as described in
// https://grafana.com/docs/loki/latest/send-data/promtail/stages/: json evaluates JMESPath
// expressions, labels turns found values into labels, and drop joins values and drops the line if
// they match.
func (all stages) apply(t *testing.T, line []byte) (labels map[string]string, drop bool) {
	t.Helper()
	extracted, labels := map[string]any{}, map[string]string{}
	for _, s := range all {
		switch {
		case s.JSON != nil:
			var data any
			if err := json.Unmarshal(line, &data); err != nil {
				t.Fatalf("%s is not JSON: %v", line, err)
			}
			for name, expression := range s.JSON.Expressions {
				if expression == "" {
					expression = name
				}
				value, err := jmespath.Search(expression, data)
				if err != nil {
					t.Fatalf("%s: %v", expression, err)
				}
				if value != nil {
					extracted[name] = value
				}
			}
		case s.Labels != nil:
			for name, source := range s.Labels {
				if source == nil {
					source = &name
				}
				if value := fmt.Sprint(extracted[*source]); extracted[*source] != nil && value != "" {
					labels[name] = value
				}
			}
		case s.Drop != nil:
			var values []string
			for _, name := range s.Drop.Source {
				values = append(values, fmt.Sprint(extracted[name]))
			}
			drop = drop || regexp.MustCompile(s.Drop.Expression).MatchString(strings.Join(values, s.Drop.Separator))
		}
	}
	return labels, drop
}

func streamLabels(t *testing.T, stream []byte) map[string]string {
	t.Helper()
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(string(stream))
	if err != nil {
		t.Fatalf("%s: %v", stream, err)
	}
	labels := map[string]string{}
	for _, m := range matchers {
		labels[m.Name] = m.Value
	}
	return labels
}
