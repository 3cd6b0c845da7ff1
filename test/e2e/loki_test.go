//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// LogQL finds every state of thousands of Events in Loki after the cluster has deleted all
// of them.
func TestLokiKeepsWhatTheClusterForgets(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{EventTTL: 20 * time.Second})
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	client := newClient(t, c)
	ledger := newLedger()
	namespaces := []string{"default"}
	for i := range 12 {
		namespaces = append(namespaces, fmt.Sprintf("team-%d", i))
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaces[i+1]}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// Some Events exist before the start.
	writeMany(t, client, ledger, namespaces, 300, 1)
	p := start(t, c.Kubeconfig(), "cluster: "+clusterName+"\nsinks:\n"+lokiSink(l.URL(), ""))
	awaitStored(t, p, l, ledger.all()) // no state may be overwritten before this

	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { recordSeries(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })
	writers.Go(func() { writeMany(t, client, ledger, namespaces, 1200, 3) })
	for _, text := range hostile {
		mustCreate(t, ledger, client, newEvent("default", "hostile.", text))
	}
	writers.Wait()
	awaitStored(t, p, l, ledger.all())
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	awaitDeleted(t, client)

	type labels struct{ namespace, reason string }
	states := map[labels]map[string]*corev1.Event{}
	for key, e := range ledger.all() {
		stream := labels{e.Namespace, e.Reason}
		if states[stream] == nil {
			states[stream] = map[string]*corev1.Event{}
		}
		states[stream][key] = e
	}
	for stream, want := range states {
		selector := fmt.Sprintf(`{namespace=%q, reason=%q}`, stream.namespace, stream.reason)
		wantStored(t, stored(t, l, selector), want)
		if got := value(t, l, "sum(count_over_time("+selector+"[1h]))"); got != len(want) {
			t.Errorf("count_over_time of %s is %d, want %d", selector, got, len(want))
		}
	}
	if got := len(stored(t, l, allStored)); got != ledger.len() {
		t.Errorf("Loki has %d entries, want %d", got, ledger.len())
	}
	wantNoShards(t, l)
	t.Logf("%d states in %d streams", ledger.len(), len(states))
}

// wantNoShards checks that Loki, if it is the store, has split no stream: rejected and
// repeated entries would be hidden in the parts.
func wantNoShards(t *testing.T, store cluster.Store) {
	t.Helper()
	l, ok := store.(*cluster.Loki)
	if !ok {
		return
	}
	from, to := testRange()
	streams, err := l.Streams(t.Context(), `{job="hindsight"}`, from, to)
	if err != nil {
		t.Fatal(err)
	}
	if len(streams) == 0 {
		t.Error("Loki knows no streams")
	}
	for _, labels := range streams {
		if labels["__stream_shard__"] != "" {
			t.Errorf("a stream was split: %v", labels)
		}
	}
}

// writeMany creates n Events of several namespaces and reasons, and updates each.
func writeMany(t *testing.T, client kubernetes.Interface, l *ledger, namespaces []string, n int, counts int32) {
	reasons := []string{"Pulled", "Created", "Started", "Killing", "Unhealthy", "FailedScheduling", "BackOff"}
	const writers = 8
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < n; i += writers {
				ns := namespaces[i%len(namespaces)]
				e := newEvent(ns, fmt.Sprintf("many.%d.", i), fmt.Sprintf("an error of pod %d", i))
				e.Reason = reasons[i/len(namespaces)%len(reasons)]
				e.InvolvedObject.Name = fmt.Sprintf("pod-%d", i%50)
				e.Source = corev1.EventSource{Component: "kubelet", Host: fmt.Sprintf("node-%d", i%5)}
				if i%3 == 0 {
					e.Type = corev1.EventTypeWarning
				}
				e, err := l.put(t.Context(), client, e)
				for count := int32(2); err == nil && count <= counts; count++ {
					e.Count, e.LastTimestamp = count, metav1.Now()
					if e, err = client.CoreV1().Events(ns).Update(t.Context(), e, metav1.UpdateOptions{}); err == nil {
						l.wrote(e, "counted up")
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
