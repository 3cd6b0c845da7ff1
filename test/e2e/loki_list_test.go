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
)

// OpenShift keeps Events for three hours. All that its list shows at a first
// start is accepted, although it comes in the order of keys and Loki takes
// nothing that is much older than what it has.
func TestLokiTakesThreeHoursAtAFirstStart(t *testing.T) {
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	const n, span = 12_000, 3*time.Hour - 2*time.Minute
	begin := time.Now().Add(-span)
	var events []*corev1.Event
	for i := range n {
		events = append(events, scriptedEvent(i, begin.Add(span*time.Duration(i)/n)))
	}
	api := serveEvents(t, events...)
	dir := t.TempDir()
	p := start(t, api.kubeconfig(t), fmt.Sprintf("cluster: %s\njournal: {dir: %q}\nsinks:\n", clusterName, dir)+lokiSink(l.URL(), ""))
	// Loki flushes chunks of more than two hours at once, and shows what is in
	// them again when their index is there, a minute later.
	awaitStored(t, p, l, api.states())
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantStored(t, stored(t, l, inStore), api.states())
	wantNoShards(t, l)
	wantNoDeadLetters(t, dir)
}

func wantNoDeadLetters(t *testing.T, journal string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(journal, "dead-letters", "loki.jsonl")); !os.IsNotExist(err) {
		t.Errorf("there are dead letters (%v):\n%.2000s", err, b)
	}
}

// A storm of namespaces and of reasons that nobody should have made up becomes
// no more streams than max_streams and one for each namespace.
func TestLokiInAStormOfStreams(t *testing.T) {
	const (
		namespaces = 2000
		maxStreams = 500
		n          = 16_000
	)
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	dice := rand.New(rand.NewPCG(1, 2))
	var events []*corev1.Event
	for i := range n {
		e := scriptedEvent(i, time.Now().Add(-10*time.Minute+time.Duration(i)*time.Millisecond))
		e.Namespace = fmt.Sprintf("ns-%d", i%namespaces)
		switch i % 4 {
		case 0: // unbounded, and looks like a reason
			e.Reason = fmt.Sprintf("Failed%X", dice.Uint64())
		case 1:
			e.Reason = fmt.Sprintf("could not reach 10.0.%d.%d: 🐳 \"quoted\"", dice.IntN(256), dice.IntN(256))
		case 2:
			e.Reason = fmt.Sprintf("%0500d", dice.Uint64())
		}
		events = append(events, e)
	}
	api := serveEvents(t, events[:n/2]...)
	dir := t.TempDir()
	p := start(t, api.kubeconfig(t), fmt.Sprintf("cluster: %s\nmax_streams: %d\njournal: {dir: %q}\nsinks:\n", clusterName, maxStreams, dir)+lokiSink(l.URL(), ""))
	p.eventually("the first half has been listed", func() bool { return len(stored(t, l, inStore)) > 0 })
	api.add(events[n/2:]...) // the rest comes by the watch
	awaitStored(t, p, l, api.states())
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	entries := stored(t, l, inStore)
	wantStored(t, entries, api.states())
	wantNoDeadLetters(t, dir)

	streams, others := map[string]bool{}, 0
	for _, e := range entries {
		streams[fmt.Sprint(e.Labels)] = true
		if e.Labels["reason"] == "other" {
			others++
		}
	}
	if len(streams) > maxStreams+namespaces {
		t.Errorf("%d streams, want no more than %d", len(streams), maxStreams+namespaces)
	}
	if len(streams) <= maxStreams || others == n {
		t.Errorf("%d streams, %d of %d entries in those of other reasons: that was no storm", len(streams), others, n)
	}
	t.Logf("%d entries in %d streams, %d of them under reason other", n, len(streams), others)
}
