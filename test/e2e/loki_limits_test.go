//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// OpenShift keeps Events for three hours. At a first start Loki accepts all of them,
// although lists are in the order of keys and Loki rejects entries much older than the
// newest of their stream.
func TestFirstStartWithThreeHoursOfEvents(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	const n, span = 12_000, 3*time.Hour - 2*time.Minute
	begin := time.Now().Add(-span)
	var events []*corev1.Event
	for i := range n {
		events = append(events, madeEvent(i, begin.Add(span*time.Duration(i)/n)))
	}
	api := serveEvents(t, events)
	dir := t.TempDir()
	p := start(t, api.Kubeconfig(), fmt.Sprintf("cluster: %s\njournal: {dir: %q}\nsinks:\n", clusterName, dir)+lokiSink(l.URL(), ""))
	// Loki flushes chunks of more than two hours at once, and returns their entries
	// only after their index is loaded, a minute later.
	awaitStored(t, p, l, statesOf(api))
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantStored(t, stored(t, l, allStored), statesOf(api))
	wantNoShards(t, l)
	wantNoDeadLetters(t, dir)
}

func wantNoDeadLetters(t *testing.T, journal string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(journal, "dead-letters", "loki.jsonl")); !os.IsNotExist(err) {
		t.Errorf("there are dead letters (%v):\n%.2000s", err, b)
	}
}

// Thousands of namespaces and generated reasons become at most max_streams streams, and
// one for each namespace.
func TestMaxStreams(t *testing.T) {
	t.Parallel()
	const (
		namespaces = 2000
		maxStreams = 500
		n          = 16_000
	)
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	dice := rand.New(rand.NewPCG(1, 2))
	var events []*corev1.Event
	for i := range n {
		e := madeEvent(i, time.Now().Add(-10*time.Minute+time.Duration(i)*time.Millisecond))
		e.Namespace = fmt.Sprintf("ns-%d", i%namespaces)
		switch i % 4 {
		case 0: // unbounded, and valid as a reason
			e.Reason = fmt.Sprintf("Failed%X", dice.Uint64())
		case 1:
			e.Reason = fmt.Sprintf("could not reach 10.0.%d.%d: 🐳 \"quoted\"", dice.IntN(256), dice.IntN(256))
		case 2:
			e.Reason = fmt.Sprintf("%0500d", dice.Uint64())
		}
		events = append(events, e)
	}
	api := serveEvents(t, events[:n/2])
	dir := t.TempDir()
	p := start(t, api.Kubeconfig(), fmt.Sprintf("cluster: %s\nmax_streams: %d\njournal: {dir: %q}\nsinks:\n", clusterName, maxStreams, dir)+lokiSink(l.URL(), ""))
	wait.Until(t, "the first half has been listed", func() bool { return len(stored(t, l, allStored)) > 0 })
	putEvents(api, events[n/2:]) // the rest is watched
	awaitStored(t, p, l, statesOf(api))
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	entries := stored(t, l, allStored)
	wantStored(t, entries, statesOf(api))
	wantNoDeadLetters(t, dir)

	streams, others := map[string]bool{}, 0
	for _, e := range entries {
		streams[fmt.Sprint(e.Labels)] = true
		if e.Labels["reason"] == "other" {
			others++
		}
	}
	if len(streams) > maxStreams+namespaces {
		t.Errorf("%d streams, want at most %d", len(streams), maxStreams+namespaces)
	}
	if len(streams) <= maxStreams || others == n {
		t.Errorf("%d streams, %d of %d entries with the reason other: the limit was not reached", len(streams), others, n)
	}
	t.Logf("%d entries in %d streams, %d of them under reason other", n, len(streams), others)
}

// Candidates of leader elections report under a new identity each time. As a label that is
// more streams than Loki allows; max_streams limits them.
func TestMaxStreamsOfALabel(t *testing.T) {
	t.Parallel()
	const (
		maxStreams = 2500
		candidates = 5400
		others     = 600
	)
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	var events []*corev1.Event
	for i := range candidates + others {
		e := madeEvent(i, time.Now().Add(-10*time.Minute+time.Duration(i)*time.Millisecond))
		if i < candidates {
			e.Namespace, e.Reason = "kube-system", "LeaderElection"
			e.InvolvedObject.Namespace = e.Namespace
			e.Source.Component = fmt.Sprintf("controller-7d9f8_%08x-5a2b-4c1d-9e3f-0123456789ab", i)
		}
		events = append(events, e)
	}
	api := serveEvents(t, events)
	dir := t.TempDir()
	p := start(t, api.Kubeconfig(), fmt.Sprintf("cluster: %s\nmax_streams: %d\njournal: {dir: %q}\nsinks:\n", clusterName, maxStreams, dir)+
		lokiSink(l.URL(), ", labels: {namespace: namespace, reason: reason, component: component}"))
	awaitStored(t, p, l, statesOf(api))
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantNoDeadLetters(t, dir)
	streams, found := map[string]bool{}, map[string]bool{}
	for _, e := range stored(t, l, allStored) {
		streams[fmt.Sprint(e.Labels)] = true
		if found[e.Metadata["event_version"]] {
			t.Fatalf("twice: %v %s", e.Labels, e.Line)
		}
		found[e.Metadata["event_version"]] = true
		if e.Labels["reason"] == "other" {
			t.Fatalf("a reason was replaced by other: %v %s", e.Labels, e.Line)
		}
		if full := e.Metadata["full_component"]; (e.Labels["component"] == "other") != (full != "") {
			t.Fatalf("label component=%q, full_component=%q", e.Labels["component"], full)
		}
	}
	if len(found) != candidates+others {
		t.Errorf("%d states, want %d", len(found), candidates+others)
	}
	if len(streams) > maxStreams+41 {
		t.Errorf("%d streams, want at most %d and one for each of 41 namespaces", len(streams), maxStreams)
	}
	if n := len(stored(t, l, `{component="other"} | full_component=~"controller-7d9f8_.*"`)); n < candidates-maxStreams {
		t.Errorf("%d candidates are found by full_component, want at least %d", n, candidates-maxStreams)
	}
	t.Logf("%d entries in %d streams", len(found), len(streams))
}
