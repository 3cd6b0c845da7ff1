package query

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	reader "github.com/hindsight-events/hindsight/query/loki"
	"github.com/hindsight-events/hindsight/router"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// TestLogQLFindsSelection checks, for every layout of a sink, that the LogQL of a selection finds
// all Events that match it; it may find more.
func TestLogQLFindsSelection(t *testing.T) {
	t.Parallel()
	selections := map[string]query.Filter{
		"all":           {},
		"a namespace":   {Namespace: "prod-metrics", Types: []string{"warning"}},
		"an object":     {Namespace: "prod-metrics", For: "deploy/querier"},
		"a node":        {For: "no/pool-1-node-3"},
		"on a node":     {Node: "pool-1-node-3"},
		"reasons":       {Reasons: []string{"Preempted", "FailedScheduling"}},
		"other reasons": {Selector: `{reason!~"Preempted|Failed.*", type!="Warning"}`},
		"any reason":    {Selector: `{reason=~"|P.*", node=~"pool-1-node-3|", component=~"|kubelet"}`},
		"no node":       {Selector: `{node=~""}`},
		"no component":  {Selector: `{component!~"|kubelet"}`},
		"not pods":      {Selector: `{kind!="Pod"}`},
		"a text":        {Grep: "Insufficient cpu"},
		"a pattern":     {Grep: `(?i)insufficient \w+|back-off`},
		"a quote":       {Grep: `"`},
		"two lines":     {Grep: "(?s)a.*\n"},
		"a cluster":     {Cluster: "prod"},
	}
	records := storable(t)
	for _, encoding := range []format.Format{format.Logfmt, format.JSON, format.EventRouter, format.Text} {
		for _, line := range []string{"full", "short", "without metadata"} {
			metadata := line != "without metadata"
			if line == "short" && !encoding.HasShort() {
				continue
			}
			for name, labels := range map[string]map[string]string{"default labels": nil, "own labels": {"ns": "namespace", "type": "type", "kind": "kind"}, "no namespace": {"kind": "kind"}} {
				layout := query.DefaultLayout()
				layout.Format, layout.Metadata = encoding, metadata
				if labels != nil {
					layout.Labels = labels
				}
				t.Run(fmt.Sprintf("%s, %s, %s", encoding, line, name), func(t *testing.T) {
					t.Parallel()
					find := storeInFake(t, layout, line == "short", records)
					parser := format.Parser{Labels: layout.Labels}
					all := find(query.DefaultLayout().Job, `{job="hindsight"}`)
					if len(all) != len(records) {
						t.Fatalf("%d entries are stored, want %d", len(all), len(records))
					}
					parsed := make([]*format.Record, len(all)) // nil: a line of the format text may be ambiguous
					for i, e := range all {
						if r, err := parser.Parse(e); err == nil {
							parsed[i] = &r
						}
					}
					for name, filter := range selections {
						s, err := query.NewSelection(filter)
						if err != nil {
							t.Fatal(err)
						}
						logql := s.LogQL(layout)
						found := map[string]bool{}
						for _, e := range find(name, logql) {
							found[e.Time.String()+e.Line] = true
						}
						wanted := 0
						for i, e := range all {
							if parsed[i] == nil || !s.Match(parsed[i]) {
								continue
							}
							if wanted++; !found[e.Time.String()+e.Line] {
								t.Errorf("%s: %s does not find %v %v %q", name, logql, e.Labels, e.Metadata, e.Line)
							}
						}
						if wanted == 0 && metadata && encoding == format.Logfmt {
							t.Errorf("%s: no record matches", name)
						}
					}
				})
			}
		}
	}
}

// storable returns a third of the Events of the recorded outage, and the examples of
// event/testdata.
func storable(t *testing.T) (records []event.Record) {
	t.Helper()
	read := func(path string, into any) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var list corev1.EventList
	read("../../examples/outage/events.json", &list)
	third := list.Items[:0]
	for i := 0; i < len(list.Items); i += 3 {
		third = append(third, list.Items[i])
	}
	list.Items = third
	inputs, err := filepath.Glob("../../event/testdata/*/input.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range inputs {
		var e corev1.Event
		read(path, &e)
		list.Items = append(list.Items, e)
	}
	for i := range list.Items {
		r := event.New(&list.Items[i])
		// Loki refuses old entries.
		r.Time = time.Now().Add(time.Duration(i)*time.Millisecond - time.Hour/2).Truncate(time.Millisecond).UTC()
		records = append(records, r)
	}
	return router.NewIntake(router.IntakeOptions{}).Apply(records)
}

// storeInFake pushes records to a new fake Loki through a sink with a layout, and returns a
// function that queries it.
func storeInFake(t *testing.T, layout query.Layout, short bool, records []event.Record) (find func(name, logql string) []format.Entry) {
	t.Helper()
	l := fakeloki.Start(t, fakeloki.Options{})
	c := loki.DefaultConfig()
	c.URL, c.Format, c.StructuredMetadata, c.Labels = loki.URL(l.URL), layout.Format, layout.Metadata, layout.Labels
	if short {
		c.Line = loki.LineShort
	}
	sink, err := loki.New(c, loki.Options{Name: "loki", Cluster: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	streams := map[string][]event.Record{}
	for i := range records {
		name := string(sink.AppendStream(nil, &records[i]))
		streams[name] = append(streams[name], records[i])
	}
	for _, records := range streams {
		if err := sink.Send(t.Context(), sinktest.Batch(sink, records)); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		t.Fatal(err)
	}
	client, err := reader.New(reader.Config{URL: u, HTTP: config.DefaultHTTPClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	return func(name, logql string) (all []format.Entry) {
		t.Helper()
		now := time.Now()
		err := client.Range(t.Context(), logql, now.Add(-time.Hour), now.Add(time.Minute), reader.Forward, func(e format.Entry) error {
			all = append(all, e)
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.IsSortedFunc(all, func(a, b format.Entry) int { return a.Time.Compare(b.Time) }) {
			t.Errorf("%s: not in order of time: %s", name, strings.TrimSpace(logql))
		}
		return all
	}
}
