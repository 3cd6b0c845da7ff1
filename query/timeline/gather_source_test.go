package timeline

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query"
)

// storedEvents is a Source in memory that selects as Loki does, and notes the queries.
type storedEvents struct {
	entries []format.Entry
	queries []string
}

func (s *storedEvents) open(selection *query.Selection) query.Source {
	return selectedEvents{s, selection}
}

type selectedEvents struct {
	*storedEvents
	selection *query.Selection
}

func (s selectedEvents) Range(_ context.Context, from, to time.Time, f func(format.Entry) error) error {
	s.queries = append(s.queries, s.selection.LogQL(query.DefaultLayout()))
	for _, e := range s.entries {
		if r := e.Record; r.Time.Before(from) || !r.Time.Before(to) || !s.selection.Match(r) {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (s selectedEvents) States(context.Context, []string, time.Time, time.Time, func(format.Entry) error) error {
	panic("not used")
}

func (s selectedEvents) Follow(context.Context, time.Time, func(format.Entry) error) error {
	panic("not used")
}

// stored returns the Events of lines, in streams of the cluster.
func stored(t *testing.T, l *lines, clusters ...string) *storedEvents {
	t.Helper()
	s := &storedEvents{}
	for i, text := range l.text {
		var e corev1.Event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		r := &format.Record{Record: event.NewReplayed(&e), WholeEvent: true}
		if len(clusters) > 0 {
			r.Labels = map[string]string{"cluster": clusters[i%len(clusters)]}
		}
		s.entries = append(s.entries, format.Entry{Record: r})
	}
	return s
}

// TestQueriesAreShort checks that the names and uids of many objects are searched by queries that fit
// into a URL, and that all are found.
func TestQueriesAreShort(t *testing.T) {
	const pods = 300
	var l lines
	for i := range pods {
		pod := fmt.Sprintf("web-79b5894fc8-%s%c", "x2k9", "bcdfghjklm"[i%10])
		pod = fmt.Sprintf("web-%d-%s", i, pod)
		preemptor := fmt.Sprintf("crunch-%d-64b5894fc8-x2k9d", i)
		l.add(i, "prod/ReplicaSet/web", "SuccessfulCreate", "Created pod: "+pod)
		l.add(i, "prod/ReplicaSet/web", "SuccessfulCreate", fmt.Sprintf("Created pod: odd-name-%d", i))
		l.add(i, fmt.Sprintf("prod/Pod/odd-name-%d", i), "Killing", "Stopping container a")
		l.add(i, "prod/Pod/"+pod, "Scheduled", fmt.Sprintf("Successfully assigned prod/%s to node-with-a-long-name-%d.example.com", pod, i))
		l.add(i, fmt.Sprintf("default/Node/node-with-a-long-name-%d.example.com", i), "NodeNotReady", "")
		l.add(i, "batch/Pod/"+preemptor, "Scheduled", "Successfully assigned batch/"+preemptor+" to n")
		l.add(i, "prod/Pod/"+pod, "Preempted", "Preempted by pod "+uidOf("batch/Pod/"+preemptor)+" on node n")
	}
	s := stored(t, &l)
	r := Request{Open: s.open, Filter: query.Filter{Namespace: "prod", For: "rs/web"}, From: noon.Add(-time.Hour), To: noon.Add(24 * time.Hour)}
	rows, omissions := told(t, r)
	if len(rows) != len(l.text) || len(omissions) > 0 {
		t.Errorf("%d Events, want %d; omitted: %q", len(rows), len(l.text), omissions)
	}
	for _, q := range s.queries {
		if n := len(url.QueryEscape(q)); n > 4000 {
			t.Errorf("a query of %d bytes: %s", n, q)
		}
	}
	if n := len(s.queries); n > 50 {
		t.Errorf("%d queries", n)
	}
}

// TestRecordedWorkloads checks that pods whose names say nothing are found by their recorded workload,
// each Event once.
func TestRecordedWorkloads(t *testing.T) {
	var l lines
	l.add(0, "prod/Deployment/web", "ScalingReplicaSet", "Scaled up replica set web-79b5894fc8 from 0 to 1")
	l.add(1, "prod/Pod/oddly-named", "BackOff", "Back-off restarting failed container")
	l.add(2, "prod/Pod/oddly-named", "Killing", "Stopping container a")
	l.add(3, "prod/Pod/another", "Killing", "Stopping container a")
	l.add(4, "shop/Pod/other", "Killing", "Stopping container a")
	s := stored(t, &l)
	for _, e := range s.entries[1:] {
		workload := "web"
		if e.Record.Event.InvolvedObject.Name == "another" {
			workload = "api"
		}
		e.Record.Attributes = []event.Pair{{Name: "workload_kind", Value: "Deployment"}, {Name: "workload_name", Value: workload}}
	}
	rows, _ := told(t, Request{
		Open: s.open, Filter: query.Filter{Namespace: "prod", For: "deploy/web"}, From: noon.Add(-time.Hour), To: noon.Add(time.Hour),
	})
	slices.Sort(rows)
	want := []string{"owned prod/pod/oddly-named BackOff", "owned prod/pod/oddly-named Killing", "selected prod/deployment/web ScalingReplicaSet"}
	if !slices.Equal(rows, want) {
		t.Errorf("got %q, want %q", rows, want)
	}
}

// TestSeveralClusters checks that the timeline tells that objects of several clusters are one.
func TestSeveralClusters(t *testing.T) {
	var l lines
	l.add(0, "prod/Pod/web-0", "Started", "")
	l.add(1, "prod/Pod/web-0", "Started", "")
	for clusters, want := range map[string]bool{"a": false, "a b": true} {
		r := Request{Open: stored(t, &l, strings.Fields(clusters)...).open, Filter: query.Filter{Namespace: "prod"}, From: noon, To: noon.Add(time.Hour)}
		_, omissions := told(t, r)
		if got := slices.ContainsFunc(omissions, func(o string) bool { return strings.Contains(o, "--cluster") }); got != want {
			t.Errorf("clusters %s: omitted %q", clusters, omissions)
		}
	}
}
