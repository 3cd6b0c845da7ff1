//go:build e2e

package observe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// A large cluster, in which all queries have to work: more pairs of namespaces and reasons, and more
// pods, than a query may have series.
const (
	manyEvents     = 100_000
	manyNamespaces = 50
	manyHours      = 6
)

var (
	manyReasons = []string{
		"Scheduled", "Pulled", "Created", "Started", "Killing", "SuccessfulCreate", "SuccessfulDelete", "ScalingReplicaSet", "Pulling", "Completed", "Preempted", "SawCompletedJob", "NodeReady",
		"BackOff", "Unhealthy", "FailedScheduling", "FailedMount", "Failed", "FailedCreate", "Evicted", "NodeNotReady", "ProvisioningFailed", "FailedGetResourceMetric", "BackoffLimitExceeded", "OOMKilling",
	}
	firstWarning = 13 // in manyReasons
)

// writeManyEvents writes the Events of a large cluster, one in a line, over the hours before a time.
func writeManyEvents(t *testing.T, path string, end time.Time) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	encoder := json.NewEncoder(w)
	for i := range manyEvents {
		at := metav1.NewTime(end.Add(-manyHours*time.Hour + time.Duration(i)*manyHours*time.Hour/manyEvents))
		reason, pod := manyReasons[(i*7)%len(manyReasons)], i/4
		uid := types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", pod))
		kind, eventType := "Pod", corev1.EventTypeNormal
		message := fmt.Sprintf("%s of the container main in pod web-%d, attempt %d", reason, pod, i)
		switch index := (i * 7) % len(manyReasons); {
		case reason == "Preempted":
			// The preemptor is another pod, which was scheduled before.
			message = fmt.Sprintf("Preempted by pod 00000000-0000-4000-8000-%012d on node node-%d", max(pod-100, 0), i%500)
		case reason == "BackOff":
			message, eventType = "Back-off restarting failed container main in pod "+string(uid), corev1.EventTypeWarning
		case reason == "Failed":
			message, eventType = "Failed to pull image registry.example.com/web:2", corev1.EventTypeWarning
		case reason == "NodeNotReady" || reason == "NodeReady":
			kind = "Node"
			fallthrough
		case index >= firstWarning:
			eventType = corev1.EventTypeWarning
		}
		namespace := fmt.Sprintf("team-%02d", (i/len(manyReasons))%manyNamespaces)
		if err := encoder.Encode(corev1.Event{
			TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
			ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("web.%d", i), UID: types.UID(fmt.Sprintf("event-%d", i)), ResourceVersion: fmt.Sprint(i + 1), CreationTimestamp: at},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: kind, Namespace: namespace, Name: fmt.Sprintf("web-%d-5d4c8b9f7d-%s", pod%200, suffix(pod)), UID: uid},
			Reason:         reason, Type: eventType, Message: message, Count: 1, FirstTimestamp: at, LastTimestamp: at,
			Source: corev1.EventSource{Component: "kubelet", Host: fmt.Sprintf("node-%d", i%500)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// suffix is that of a pod's name, as Kubernetes makes them.
func suffix(n int) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	var s [5]byte
	for i := range s {
		s[i] = letters[n%len(letters)]
		n /= len(letters)
	}
	return string(s[:])
}

// No query of the dashboard fails, or has more series than Loki permits, with no Events at all and
// with those of a large cluster.
func TestLokiQueriesOfALargeCluster(t *testing.T) {
	l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{"ingestion_rate_mb": 1000, "ingestion_burst_size_mb": 1000}})
	d := eventsDashboard(t)
	now := time.Now()
	for _, q := range d.queries(now, manyHours*time.Hour) {
		if series, _ := seriesOf(t, l, q, now, manyHours*time.Hour); series > strings.Count(q.expr, " or vector(") {
			t.Errorf("%s finds %d series where there is nothing", q.where, series)
		}
	}
	events := filepath.Join(t.TempDir(), "events.json")
	writeManyEvents(t, events, now)
	begun := time.Now()
	_, stderr, code := program.Run(t, program.Options{
		Args:   []string{"replay", events},
		Config: fmt.Sprintf("cluster: large\njournal: {max_bytes: 256MiB}\nsinks:\n  - {name: loki, loki: {url: %q}}\n", l.URL()),
	})
	if code != 0 {
		t.Fatalf("hindsight replay: exit code %d\n%s", code, stderr)
	}
	t.Logf("%d Events were sent in %v", manyEvents, time.Since(begun).Round(time.Second))

	const permitted = 500 // max_query_series
	var all time.Duration
	for _, q := range d.queries(now, manyHours*time.Hour) {
		series, took := seriesOf(t, l, q, now, manyHours*time.Hour)
		all += took
		t.Logf("%4d series, %5d ms: %s", series, took.Milliseconds(), q.where)
		if series > permitted && !q.log {
			t.Errorf("%s has %d series", q.where, series)
		}
	}
	t.Logf("all queries: %v", all.Round(time.Millisecond))
}
