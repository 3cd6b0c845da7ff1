package timeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
	"github.com/hindsight-events/hindsight/query/file"
	"github.com/hindsight-events/hindsight/query/objects"
)

// fromFile returns a Request for a file.
func fromFile(t *testing.T, path string, f query.Filter) Request {
	t.Helper()
	return Request{
		Open: func(s *query.Selection) query.Source {
			files, err := file.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			return query.Files{Files: files, Selection: s}
		},
		Filter: f,
		From:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// story is what a test compares.
type gatheredStory struct {
	events    map[string]int // by relation, workload and reason
	total     int
	omissions []string
}

func gatherAll(t *testing.T, r Request) (*Gathered, gatheredStory) {
	t.Helper()
	g, err := Gather(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := gatheredStory{events: map[string]int{}}
	last := time.Time{}
	if err := g.Each(t.Context(), func(r *format.Record) error {
		if r.Time.Before(last) {
			t.Errorf("%s is visited after %s", r.Time, last)
		}
		last = r.Time
		o := objects.Of(r)
		w, _ := g.Graph.Workload(o)
		s.events[fmt.Sprintf("%s %s/%s %s", g.Relation(o), w.Namespace, w, r.Event.Reason)]++
		s.total++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, o := range g.Omissions {
		s.omissions = append(s.omissions, fmt.Sprintf("%d %s", o.Count, o.Text))
	}
	return g, s
}

const outageFile = "../../examples/outage/events.json"

// sum adds the Events whose key begins with a text.
func (s gatheredStory) sum(prefix string) (n int) {
	for key, count := range s.events {
		if strings.HasPrefix(key, prefix) {
			n += count
		}
	}
	return n
}

// TestGatherOutage checks the stories that the recorded outage tells.
func TestGatherOutage(t *testing.T) {
	for name, c := range map[string]struct {
		filter query.Filter
		want   map[string]int // by the beginning of the key
	}{
		"a Deployment": {query.Filter{Namespace: "prod-metrics", For: "deployment/ingester"}, map[string]int{
			"owned prod-metrics/deployment/ingester Preempted":                  20,
			"selected prod-metrics/deployment/ingester ScalingReplicaSet":       1,
			"preemptor dedicated-metrics/deployment/ingester ScalingReplicaSet": 1,
			"preemptor dedicated-metrics/deployment/ingester Scheduled":         6,
			"victim prod-metrics/deployment/querier Preempted":                  16,
			"owned prod-metrics/deployment/querier":                             0,
			"selected team-":                                                    0,
			"node /node/":                                                       42,
		}},
		"its Preempted only": {query.Filter{Namespace: "prod-metrics", For: "deployment/ingester", Reasons: []string{"Preempted"}}, map[string]int{
			"owned prod-metrics/deployment/ingester Preempted": 20, "preemptor": 0, "node": 0, "": 36,
		}},
		"a pod": {query.Filter{Namespace: "prod-metrics", For: "pod/ingester-79b5894fc8-2vtfb"}, map[string]int{
			"selected": 3,
		}},
		"the namespace that began": {query.Filter{Namespace: "dedicated-metrics"}, map[string]int{
			"selected dedicated-metrics/": 45, "victim prod-metrics/": 6,
		}},
		"a StatefulSet": {query.Filter{Namespace: "team-data", For: "sts/postgres"}, map[string]int{
			"owned team-data/statefulset/postgres ProvisioningFailed": 1,
		}},
		"a CronJob": {query.Filter{Namespace: "team-data", For: "cronjob/usage-report"}, map[string]int{
			"owned team-data/cronjob/usage-report Completed": 1, "selected team-data/cronjob/usage-report SawCompletedJob": 1,
		}},
		"a node": {query.Filter{Node: "pool-1-node-3"}, map[string]int{
			"selected /node/pool-1-node-3 NodeNotReady": 1, "selected prod-metrics/deployment/querier Preempted": 4,
			"selected prod-metrics/deployment/querier Scheduled": 8, "preemptor dedicated-metrics/deployment/ingester ScalingReplicaSet": 1,
		}},
		"the cluster": {query.Filter{}, map[string]int{"": 725}},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := gatherAll(t, fromFile(t, outageFile, c.filter))
			for prefix, want := range c.want {
				if n := got.sum(prefix); n != want {
					t.Errorf("%d Events %q, want %d", n, prefix, want)
				}
			}
			if t.Failed() || testing.Verbose() {
				for _, k := range slices.Sorted(maps.Keys(got.events)) {
					t.Log(k, got.events[k])
				}
				t.Log(got.omissions)
			}
		})
	}
}
