//go:build e2e

package query

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/query/timeline"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// month is a busy cluster: deployments that are rolled every hour, jobs that preempt some of their
// pods, and nodes that fail. Each pod has some ten Events in its life of an hour.
type month struct {
	deployments, replicas, hours int
	random                       *rand.Rand
	events                       []corev1.Event // of the current hour
	version                      int
	former                       []podOnNode // pods of the former hour
	web                          int         // Events of prod/web, and of what it owns
}

type podOnNode struct{ namespace, set, name, node, uid string }

const (
	monthDeployments = 20
	eventsPerPod     = 9
	monthNodes       = 100
	hoursOfMonth     = 30 * 24
)

// newMonth returns a month of about n Events; with few, it has fewer hours.
func newMonth(n int) *month {
	m := &month{deployments: monthDeployments, hours: hoursOfMonth, random: rand.New(rand.NewPCG(1, 2))}
	if m.replicas = n / (m.hours * m.deployments * eventsPerPod); m.replicas == 0 {
		m.replicas, m.hours = 1, max(n/(m.deployments*eventsPerPod), 2)
	}
	return m
}

func (m *month) add(at time.Time, component, kind, namespace, name, uid, node, eventType, reason, message string) {
	m.version++
	e := corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", name, at.UnixNano()+int64(m.version)), UID: types.UID(m.uid())},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: name, APIVersion: "v1", UID: types.UID(uid)},
		Reason:         reason, Message: message, Type: eventType, Count: 1,
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at),
		Source: corev1.EventSource{Component: component, Host: node},
	}
	if kind == "Node" {
		e.Namespace, e.InvolvedObject.Namespace = "default", ""
	}
	m.events = append(m.events, e)
	if namespace == "prod" && (name == "web" || strings.HasPrefix(name, "web-")) {
		m.web++
	}
}

func (m *month) uid() string {
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", m.random.Uint32(), m.random.IntN(1<<16), m.random.IntN(1<<12), m.random.IntN(1<<12), m.random.Int64N(1<<48))
}

func (m *month) word(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[m.random.IntN(len(alphabet))]
	}
	return string(b)
}

// hour adds the Events of one hour.
func (m *month) hour(start time.Time) {
	within := func() time.Time { return start.Add(time.Duration(m.random.Int64N(int64(50 * time.Minute)))) }
	node := func() string { return fmt.Sprintf("node-%d", m.random.IntN(monthNodes)) }
	former := m.former
	m.former = nil
	for d := range m.deployments {
		namespace, name := []string{"prod", "shop", "search", "data", "infra"}[d%5], fmt.Sprintf("svc-%d", d/5)
		if d == 0 {
			name = "web"
		}
		set, at := name+"-"+m.word("456789bcdf", 10), within()
		m.add(at, "deployment-controller", "Deployment", namespace, name, "", "", "Normal", "ScalingReplicaSet", fmt.Sprintf("Scaled up replica set %s from 0 to %d", set, m.replicas))
		for range m.replicas {
			p := podOnNode{namespace, set, set + "-" + m.word("bcdfghjklmnpqrstvwxz2456789", 5), node(), m.uid()}
			m.former = append(m.former, p)
			at := at.Add(time.Duration(m.random.IntN(60)) * time.Second)
			about := func(after int, component, node, eventType, reason, message string) {
				m.add(at.Add(time.Duration(after)*time.Second), component, "Pod", namespace, p.name, p.uid, node, eventType, reason, message)
			}
			m.add(at, "replicaset-controller", "ReplicaSet", namespace, set, "", "", "Normal", "SuccessfulCreate", "Created pod: "+p.name)
			about(0, "default-scheduler", "", "Normal", "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", namespace, p.name, p.node))
			about(1, "kubelet", p.node, "Normal", "Pulling", `Pulling image "registry.example.com/web:1.2.3"`)
			about(3, "kubelet", p.node, "Normal", "Pulled", `Successfully pulled image "registry.example.com/web:1.2.3" in 1.734s (1.734s including waiting). Image size: 84213904 bytes.`)
			about(3, "kubelet", p.node, "Normal", "Created", "Container created")
			about(4, "kubelet", p.node, "Normal", "Started", "Container started")
			about(9, "kubelet", p.node, "Warning", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
		}
	}
	for i, p := range former {
		at := within()
		m.add(at, "kubelet", "Pod", p.namespace, p.name, p.uid, p.node, "Normal", "Killing", "Stopping container web")
		if i%(max(m.replicas, 1)*2) != 0 {
			m.add(at, "replicaset-controller", "ReplicaSet", p.namespace, p.set, "", "", "Normal", "SuccessfulDelete", "Deleted pod: "+p.name)
			continue
		}
		job, uid := fmt.Sprintf("crunch-%d", at.Unix()/60), m.uid()
		pod := job + "-" + m.word("bcdfghjklmnpqrstvwxz2456789", 5)
		m.add(at, "default-scheduler", "Pod", p.namespace, p.name, p.uid, "", "Normal", "Preempted", fmt.Sprintf("Preempted by pod %s on node %s", uid, p.node))
		m.add(at.Add(-time.Second), "default-scheduler", "Pod", "batch", pod, uid, "", "Warning", "FailedScheduling", "0/100 nodes are available: 100 Insufficient cpu.")
		m.add(at.Add(time.Minute), "default-scheduler", "Pod", "batch", pod, uid, "", "Normal", "Scheduled", fmt.Sprintf("Successfully assigned batch/%s to %s", pod, p.node))
	}
	for range 2 {
		n, at := node(), within()
		m.add(at, "node-controller", "Node", "", n, n, "", "Normal", "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", n))
	}
}

// writeTo writes the Events, oldest first, and returns their number.
func (m *month) writeTo(w io.Writer, start time.Time) (n int, err error) {
	out := bufio.NewWriterSize(w, 1<<20)
	enc := json.NewEncoder(out)
	for h := range m.hours {
		m.events = m.events[:0]
		m.hour(start.Add(time.Duration(h) * time.Hour))
		slices.SortStableFunc(m.events, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
		for i := range m.events {
			e := &m.events[i]
			n++
			e.ResourceVersion, e.Kind, e.APIVersion = strconv.Itoa(1_000_000+n), "Event", "v1"
			if err := enc.Encode(e); err != nil {
				return n, err
			}
		}
	}
	return n, out.Flush()
}

// TestMonth stores a month of a busy cluster and tells the story of one Deployment, which must have all
// its Events and the name of every preemptor. HINDSIGHT_TEST_MONTH sets the number of Events. With -v,
// the test logs what the command took: time, memory, and bytes fetched.
func TestMonth(t *testing.T) {
	n := 15_000
	if set, err := strconv.Atoi(os.Getenv("HINDSIGHT_TEST_MONTH")); err == nil {
		n = set
	}
	l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{
		"reject_old_samples": false, "ingestion_rate_mb": 1000, "ingestion_burst_size_mb": 1000,
		"per_stream_rate_limit": "1GB", "per_stream_rate_limit_burst": "1GB",
	}})
	m := newMonth(n)
	start := time.Now().Truncate(time.Hour).Add(-time.Duration(m.hours) * time.Hour)
	in, out := io.Pipe()
	written := make(chan int, 1)
	go func() {
		n, err := m.writeTo(out, start)
		out.CloseWithError(err)
		written <- n
	}()
	config := configure(t, lokiSink(l, ""))
	_, stderr, code := program.Run(t, program.Options{Args: []string{"replay", "-", "--config", config}, Env: environment(t.TempDir()), Stdin: in})
	in.Close()
	n = <-written
	if code != 0 {
		t.Fatalf("hindsight replay: exit code %d: %s", code, stderr)
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := start.Add(time.Duration(m.hours) * time.Hour)
	told, cost := tell(t, "--config", config, "-n", "prod", "--for", "deploy/web", "--from", start.Format(time.RFC3339), "--to", to.Format(time.RFC3339))
	t.Logf("%d Events in Loki, %d of web and its pods: %s", n, m.web, cost)
	if told.Totals.Events < m.web {
		t.Errorf("the timeline has %d Events, fewer than those of web and its pods", told.Totals.Events)
	}
	tree := runQuery(t, "--config", config, "-n", "prod", "--for", "deploy/web", "--tree", "-o", "name", "--from", start.Format(time.RFC3339), "--to", to.Format(time.RFC3339))
	if len(tree) != m.web {
		t.Errorf("query --tree has %d Events of web and its pods, want %d", len(tree), m.web)
	}
	for _, p := range told.Preemptions {
		if p.Preemptor < 0 {
			t.Errorf("a preemptor is unknown: %+v", p)
		}
	}
	for _, o := range told.Omissions {
		t.Logf("omitted: %d %s", o.Count, o.Text)
	}
}

// tell runs hindsight timeline and returns its page and what it took.
func tell(t *testing.T, args ...string) (told timeline.Timeline, cost string) {
	t.Helper()
	began := time.Now()
	var out program.Output
	p := program.ForTest(t, program.Options{
		Args: append([]string{"timeline", "-o", "json"}, args...), Env: environment(t.TempDir()), Stdout: &out,
	})
	peak := 0 // KiB
	for running := true; running; {
		select {
		case <-p.Done():
			running = false
		case <-time.After(20 * time.Millisecond):
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
			if _, text, ok := strings.Cut(string(status), "VmHWM:"); ok {
				var size int
				_, _ = fmt.Sscan(text, &size)
				peak = max(peak, size)
			}
		}
	}
	took := time.Since(began)
	if code := p.Exited().ExitCode(); code != 0 {
		t.Fatalf("hindsight timeline: exit code %d: %s", code, p.Log())
	}
	if err := json.Unmarshal([]byte(out.String()), &told); err != nil {
		t.Fatal(err)
	}
	return told, fmt.Sprintf("%s (%s of CPU), %d MB of memory, %.0f MB fetched in %d requests", took.Round(100*time.Millisecond),
		(p.Exited().UserTime() + p.Exited().SystemTime()).Round(100*time.Millisecond), peak>>10, float64(told.Totals.Bytes)/1e6, told.Totals.Requests)
}
