//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// replica is the configuration of one of several replicas.
func replica(journal, sinks string) string {
	return fmt.Sprintf(`cluster: %s
leader_election: {enabled: true, namespace: default, lease_duration: 8s, renew_deadline: 6s, retry_period: 500ms}
journal: {dir: %q}
sinks:
%s`, clusterName, journal, sinks)
}

const toStdout = "  - {name: out, stdout: {}}\n"

// leads waits until a replica has taken over.
func leads(p *running) {
	p.t.Helper()
	wait.Until(p.t, "it leads", func() bool { return p.Logged("reading events") })
}

// The leader is killed, hung and told to end, again and again: the next replica
// goes on where it was, without a list and without a gap.
func TestReplicasTakeOver(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := replica("", toStdout)
	leader := start(t, c.Kubeconfig(), config)
	mustPut(t, ledger, client, newEvent("default", "first.", "first"))
	wantAll(t, leader, ledger)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })

	var all []state
	for _, how := range []string{"told to end", "killed", "hung", "killed", "hung", "told to end"} {
		next := start(t, c.Kubeconfig(), config)
		wait.Until(t, "it waits", func() bool { return next.Logged("hindsight started") })
		if status, body := next.get("/readyz"); status != 200 {
			t.Errorf("who waits to lead is not ready: %s", body)
		}
		before := ledger.len()
		wait.Until(t, "Events are written", func() bool { return ledger.len() > before+50 })
		if next.Logged("reading events") {
			t.Fatal("two replicas read Events")
		}
		switch how {
		case "told to end":
			if code := leader.terminate(); code != 0 {
				t.Errorf("%s, exit code %d, want 0", how, code)
			}
		case "killed":
			leader.Kill()
		case "hung":
			if err := leader.Pause(); err != nil {
				t.Fatal(err)
			}
			leads(next)
			written := len(leader.seen())
			if err := leader.Resume(); err != nil {
				t.Fatal(err)
			}
			if code := leader.exitCode(); code != 1 {
				t.Errorf("deposed, exit code %d, want 1", code)
			}
			// What it had begun to write when it was stopped may be finished.
			if more := len(leader.seen()) - written; more > 70 {
				t.Errorf("a deposed leader wrote %d lines", more)
			}
		}
		leads(next)
		wait.Until(t, "it delivers", func() bool { return len(next.seen()) > 0 })
		all = append(all, leader.seen()...)
		leader = next
		if n := strings.Count(next.Log(), `msg="listed events"`); n > 0 {
			t.Errorf("after the leader was %s, everything was listed again", how)
		}
	}
	stop()
	writers.Wait()
	wait.Until(t, "every state has come out", func() bool { return len(ledger.missing(append(all, leader.seen()...))) == 0 })
	if code := leader.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	all = append(all, leader.seen()...)
	t.Logf("%d states written, %d lines came again", ledger.len(), wantIdenticalRepeats(t, all))
}

// A leader that ends in good order leaves nothing to be sent again.
func TestRollingUpdateRepeatsNothing(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := replica("", toStdout)
	leader := start(t, c.Kubeconfig(), config)
	mustPut(t, ledger, client, newEvent("default", "first.", "first"))
	wantAll(t, leader, ledger)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { writePlain(ctx, client, ledger) })
	var all []state
	for range 3 {
		before := ledger.len()
		wait.Until(t, "Events are written", func() bool { return ledger.len() > before+20 })
		if code := leader.terminate(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		all = append(all, leader.seen()...)
		leader = start(t, c.Kubeconfig(), config)
		leads(leader)
	}
	stop()
	writers.Wait()
	wait.Until(t, "every state has come out", func() bool { return len(ledger.missing(append(all, leader.seen()...))) == 0 })
	leader.terminate()
	if n := wantIdenticalRepeats(t, append(all, leader.seen()...)); n != 0 {
		t.Errorf("%d lines came again", n)
	}
}

// rewrite puts Events and counts each up, so that etcd alone knows the states
// between, and returns all states and the last ones.
func rewrite(t *testing.T, client kubernetes.Interface, prefix string) (all, last *ledger) {
	t.Helper()
	all, last = newLedger(), newLedger()
	for i := range 10 {
		e := newEvent("default", fmt.Sprintf("%s.%d.", prefix, i), prefix)
		e, err := all.put(t.Context(), client, e)
		if err != nil {
			t.Fatal(err)
		}
		e.Count = 2
		if e, err = client.CoreV1().Events("default").Update(t.Context(), e, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		all.wrote(e, "counted up")
		last.wrote(e, "counted up")
	}
	return all, last
}

// newest is the highest version in a ledger.
func (l *ledger) newest(t *testing.T) (version uint64) {
	t.Helper()
	for _, e := range l.all() {
		version = max(version, mustParse(t, e.ResourceVersion))
	}
	return version
}

// One sink is dead for so long that the API server cannot replay what it lacks.
// A failover gives it what is left, and a gap; the other one gets nothing of
// that. When the first leader comes back to its journal, it delivers what it had
// kept for the sink, also what lies in the gap.
func TestFailoverWithADeadSink(t *testing.T) { cluster.EachStore(t, failoverWithADeadSink) }

func failoverWithADeadSink(t *testing.T, store cluster.Store) {
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	sinks := toStdout + lokiSink(store.SinkURL(), "")
	kept := replica(t.TempDir()+"/journal", sinks)

	// Both are known: the store has accepted something.
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := newLedger()
	mustPut(t, first, client, newEvent("default", "first.", "first"))
	leader := start(t, c.Kubeconfig(), kept)
	wantAll(t, leader, first)
	awaitStored(t, leader, store, first.all())
	pause(t.Context(), 2*time.Second) // a renewal says so
	store.Kill()

	during, last := rewrite(t, client, "during")
	wantAll(t, leader, during)
	pause(t.Context(), 2*time.Second) // a renewal says how far stdout is
	// Behind where the store is, before where stdout is.
	if err := c.Compact(t.Context(), int64(during.newest(t)-1)); err != nil {
		t.Fatal(err)
	}
	leader.Kill()

	second := start(t, c.Kubeconfig(), replica("", sinks))
	leads(second)
	after := newLedger()
	mustPut(t, after, client, newEvent("default", "after.", "after"))
	wantAll(t, second, after)
	for _, s := range second.seen() {
		if len(after.missing([]state{s})) > 0 {
			t.Errorf("for the dead sink's sake, a healthy one is given again: %s", s.line)
		}
	}
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := first.all()
	maps.Copy(want, last.all())
	maps.Copy(want, after.all())
	awaitStored(t, second, store, want)
	wait.Until(t, "the gap is stored", func() bool { return len(stored(t, store, gaps)) > 0 })
	wantStoredWithGap(t, store, want)
	if code := second.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	third := start(t, c.Kubeconfig(), kept)
	leads(third)
	maps.Copy(want, during.all())
	awaitStored(t, third, store, want) // also what the first leader had kept
	wantStoredWithGap(t, store, want)
	if n := len(third.seen()); n != 0 {
		t.Errorf("a healthy sink is given %d states again", n)
	}
	if code := third.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// withoutGaps leaves out what Hindsight says itself.
func withoutGaps(entries []cluster.LokiEntry) (others []cluster.LokiEntry) {
	for _, e := range entries {
		if e.Labels["reason"] != "HindsightGap" {
			others = append(others, e)
		}
	}
	return others
}

// gaps selects the gaps that hindsight declares.
const gaps = `{job="hindsight", reason="HindsightGap"}`

// wantStoredWithGap checks that the store has the states, each visible once, and
// one gap.
func wantStoredWithGap(t *testing.T, store cluster.Store, states map[string]*corev1.Event) {
	t.Helper()
	entries := stored(t, store, inStore)
	others := withoutGaps(entries)
	if n := len(entries) - len(others); n != 1 {
		t.Errorf("%d gaps are stored, want 1", n)
	}
	wantStored(t, others, states)
}
