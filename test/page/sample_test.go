// Package page tests the HTML page of a timeline in a real browser, and holds the Timelines that the
// tests show.
package page

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/file"
	"github.com/hindsight-events/hindsight/query/objects"
	"github.com/hindsight-events/hindsight/query/timeline"
	"github.com/hindsight-events/hindsight/query/timeline/page"
)

// fold makes a Timeline of records.
func fold(title string, q timeline.Query, records []format.Record) *timeline.Timeline {
	slices.SortStableFunc(records, func(a, b format.Record) int { return a.Time.Compare(b.Time) })
	graph := objects.NewGraph()
	for i := range records {
		graph.Observe(&records[i])
	}
	f := timeline.NewFolder(graph, q, nil)
	for i := range records {
		f.Add(&records[i])
	}
	t := f.Timeline()
	t.Title = title
	return t
}

// outage is the Timeline of examples/outage.
func outage(t testing.TB) *timeline.Timeline {
	t.Helper()
	files, err := file.Open(filepath.FromSlash("../../examples/outage/events.json"))
	if err != nil {
		t.Fatal(err)
	}
	var records []format.Record
	err = files.Range(t.Context(), time.Time{}, func(e format.Entry) error {
		r, err := format.Parser{}.Parse(e)
		records = append(records, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 11, 21, 9, 58, 0, 0, time.UTC)
	return fold("all namespaces", timeline.Query{From: from, To: from.Add(3 * time.Minute), Source: "file examples/outage/events.json", Zone: "Europe/Berlin"}, records)
}

// made is an Event to be recorded.
type made struct {
	at                          time.Time
	namespace, kind, name, node string
	kindOf, reason, message     string
	component                   string
	count                       int
	first                       time.Time
}

var serial int

func record(m made) format.Record {
	serial++
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: m.namespace, Name: fmt.Sprintf("e.%x", serial), UID: types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012x", serial)), ResourceVersion: fmt.Sprint(serial)},
		InvolvedObject: corev1.ObjectReference{Kind: m.kind, Namespace: m.namespace, Name: m.name, UID: types.UID(fmt.Sprintf("%s-uid-%s", m.name, m.namespace))},
		Reason:         m.reason, Message: m.message, Type: m.kindOf, Source: corev1.EventSource{Component: m.component, Host: m.node},
		FirstTimestamp: metav1.NewTime(m.at), LastTimestamp: metav1.NewTime(m.at), Count: int32(max(1, m.count)),
	}
	if !m.first.IsZero() {
		e.FirstTimestamp = metav1.NewTime(m.first)
	}
	return format.Record{Record: event.New(e), WholeEvent: true}
}

// week is a busy week of a cluster: n Events of 40 Deployments on 30 nodes, with rollouts by day, a
// crash loop, and a node that fails.
func week(n int) *timeline.Timeline {
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 10, 19, 0, 0, 0, 0, time.UTC)
	var records []format.Record
	add := func(m made) { records = append(records, record(m)) }
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	suffix := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	hashes := map[string]string{} // of a day's ReplicaSet
	failed := start.Add(75*time.Hour + 11*time.Minute)
	add(made{at: failed, namespace: "default", kind: "Node", name: "worker-07", kindOf: "Normal", reason: "NodeNotReady", message: "Node worker-07 status is now: NodeNotReady", component: "node-controller"})
	for len(records) < n {
		team := fmt.Sprintf("team-%c", 'a'+random.IntN(8))
		app := []string{"api", "worker", "frontend", "cache", "billing"}[random.IntN(5)]
		at := start.Add(time.Duration(random.Int64N(int64(7 * 24 * time.Hour))))
		if random.IntN(3) > 0 { // office hours
			at = start.Add(time.Duration(random.IntN(7))*24*time.Hour + 8*time.Hour + time.Duration(random.Int64N(int64(10*time.Hour))))
		}
		release := team + app + at.Format("02")
		if hashes[release] == "" {
			hashes[release] = suffix(10)
		}
		set := app + "-" + hashes[release]
		pod := set + "-" + suffix(5)
		node := fmt.Sprintf("worker-%02d", random.IntN(30))
		switch k := random.IntN(20); {
		case k < 9:
			add(made{at: at, namespace: team, kind: "Deployment", name: app, kindOf: "Normal", reason: "ScalingReplicaSet", message: "Scaled up replica set " + set + " from 0 to 1", component: "deployment-controller"})
			add(made{at: at.Add(time.Second), namespace: team, kind: "ReplicaSet", name: set, kindOf: "Normal", reason: "SuccessfulCreate", message: "Created pod: " + pod, component: "replicaset-controller"})
			add(made{at: at.Add(time.Second), namespace: team, kind: "Pod", name: pod, kindOf: "Normal", reason: "Scheduled", message: "Successfully assigned " + team + "/" + pod + " to " + node, component: "default-scheduler"})
			for i, reason := range []string{"Pulling", "Pulled", "Created", "Started"} {
				add(made{at: at.Add(time.Duration(2+i) * time.Second), namespace: team, kind: "Pod", name: pod, node: node, kindOf: "Normal", reason: reason, message: reason + " container " + app, component: "kubelet"})
			}
		case k < 12:
			add(made{at: at, namespace: team, kind: "Pod", name: pod, node: node, kindOf: "Warning", reason: "BackOff", message: "Back-off restarting failed container " + app + " in pod " + pod, component: "kubelet", count: 1 + random.IntN(200), first: at.Add(-time.Duration(random.IntN(3600)) * time.Second)})
		case k < 16:
			add(made{at: at, namespace: team, kind: "Pod", name: pod, node: node, kindOf: "Warning", reason: "Unhealthy", message: fmt.Sprintf("Readiness probe failed: HTTP probe failed with statuscode: %d", 500+random.IntN(4)), component: "kubelet", count: 1 + random.IntN(9)})
		case k < 18:
			add(made{at: at, namespace: team, kind: "Pod", name: pod, kindOf: "Warning", reason: "FailedScheduling", message: "0/30 nodes are available: 30 Insufficient cpu.", component: "default-scheduler"})
		default:
			at = failed.Add(time.Duration(random.Int64N(int64(5 * time.Minute))))
			add(made{at: at, namespace: team, kind: "Pod", name: pod, node: "worker-07", kindOf: "Normal", reason: "TaintManagerEviction", message: "Marking for deletion Pod " + team + "/" + pod, component: "taint-eviction-controller"})
		}
	}
	t := fold("all namespaces", timeline.Query{From: start, To: start.AddDate(0, 0, 7), Source: "Loki http://loki-gateway.monitoring", Zone: "America/New_York"}, records[:n])
	t.Omissions = append(t.Omissions, timeline.Omission{Text: "lines without a time or uid: they cannot be joined", Count: 12})
	return t
}

// hostileTexts are what somebody may write into an Event to harm who reads it.
var hostileTexts = []string{
	`</script><script>window.hacked=1;fetch("http://127.0.0.1:9/x")</script>`,
	`<img src=x onerror="window.hacked=2"><svg onload="window.hacked=3">`,
	`<!--<script>`, `]]>`, `--><script>window.hacked=4</script>`,
	`"><a href="javascript:window.hacked=5">click</a>`,
	`'"` + "`" + `${window.hacked=6}{{.Title}}`,
	"line one\u2028line two\u2029line three\nline four\ttab\x00nul\x1b[31mred\x1b[0m",
	"\u202egnp.exe\u202c \u2066isolated\u2069 \u200fright\u200e \u061c",
	"שלום עליכם العربية 漢字かな交じり文 👩\u200d🚀",
	"\xff\xfe invalid \xc3\x28 utf-8 \xed\xa0\x80",
	strings.Repeat("0123456789 <b>&amp; ", 3200),
	strings.Repeat("x", 3000),
	"javascript:window.hacked=7", "data:text/html,<script>window.hacked=8</script>", "__proto__", "constructor",
	"", " ", "%s%n{{template \"x\"}}",
}

// hostile is a Timeline with hostileTexts in each of its fields.
func hostile() *timeline.Timeline {
	start := time.Date(2026, 11, 20, 23, 59, 0, 0, time.UTC)
	var records []format.Record
	for i, text := range hostileTexts {
		at := start.Add(time.Duration(i) * 7 * time.Second)
		for _, kind := range []string{"Warning", "Normal", text} {
			records = append(records, record(made{at: at, namespace: "team", kind: "Pod", name: "web-0", kindOf: kind, reason: "Hostile", message: text, component: "kubelet", node: "worker-1"}))
		}
		records = append(records, record(made{at: at, namespace: text, kind: text, name: text, kindOf: "Warning", reason: text, message: text, component: text, node: text}))
		records = append(records, record(made{at: at, namespace: "team", kind: "Pod", name: "victim", kindOf: "Normal", reason: "Preempted", message: "Preempted by pod " + text + " on node " + text, component: "default-scheduler"}))
	}
	gap := event.NewGap(event.Gap{Namespace: "hindsight", From: event.Position{Time: start.Add(20 * time.Second)}, To: event.Position{Time: start.Add(40 * time.Second)}, Cause: event.Cause(hostileTexts[0])})
	records = append(records, format.Record{Record: gap})
	t := fold(hostileTexts[0], timeline.Query{From: start, To: start.Add(time.Hour), For: hostileTexts[1], Node: hostileTexts[5], Cluster: hostileTexts[8], Around: hostileTexts[2], Filters: hostileTexts, Source: hostileTexts[0], Zone: hostileTexts[0]}, records)
	for _, text := range hostileTexts {
		t.Omissions = append(t.Omissions, timeline.Omission{Text: text, Count: 1})
	}
	t.Preemptions = append(t.Preemptions, timeline.Preemption{Victim: 0, Preemptor: timeline.None, PreemptorUID: hostileTexts[0], Pods: 1})
	return t
}

// write returns the path of a file with the page.
func write(t testing.TB, tl *timeline.Timeline) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, tl); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "timeline.html")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
