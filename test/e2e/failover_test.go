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

// replica returns the configuration of one of several replicas.
func replica(journal, sinks string) string {
	return fmt.Sprintf(`cluster: %s
leader_election: {enabled: true, namespace: default, lease_duration: 8s, renew_deadline: 6s, retry_period: 500ms}
journal: {dir: %q}
sinks:
%s`, clusterName, journal, sinks)
}

const toStdout = "  - {name: out, stdout: {}}\n"

// awaitLeading waits until a replica leads.
func awaitLeading(p *running) {
	p.t.Helper()
	wait.Until(p.t, "the replica leads", func() bool { return p.Logged("reading events") })
}

// The leader is killed, paused and terminated, repeatedly: the next replica resumes from
// its position, without a list and without a gap.
func TestFailover(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := replica("", toStdout)
	leader := start(t, c.Kubeconfig(), config)
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	awaitDelivered(t, leader, ledger)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })

	var all []state
	for _, how := range []string{"terminated", "killed", "paused", "killed", "paused", "terminated"} {
		next := start(t, c.Kubeconfig(), config)
		wait.Until(t, "the next replica waits", func() bool { return next.Logged("hindsight started") })
		if status, body := next.get("/readyz"); status != 200 {
			t.Errorf("a candidate is not ready: %s", body)
		}
		before := ledger.len()
		wait.Until(t, "Events are written", func() bool { return ledger.len() > before+50 })
		if next.Logged("reading events") {
			t.Fatal("two replicas read Events")
		}
		switch how {
		case "terminated":
			if code := leader.terminate(); code != 0 {
				t.Errorf("%s, exit code %d, want 0", how, code)
			}
		case "killed":
			leader.Kill()
		case "paused":
			if err := leader.Pause(); err != nil {
				t.Fatal(err)
			}
			awaitLeading(next)
			written := len(leader.seen())
			if err := leader.Resume(); err != nil {
				t.Fatal(err)
			}
			if code := leader.exitCode(); code != 1 {
				t.Errorf("after the loss of the Lease: exit code %d, want 1", code)
			}
			// A batch that had passed the fence may be completed.
			if more := len(leader.seen()) - written; more > 70 {
				t.Errorf("a former leader wrote %d lines", more)
			}
		}
		awaitLeading(next)
		wait.Until(t, "the next replica delivers", func() bool { return len(next.seen()) > 0 })
		all = append(all, leader.seen()...)
		leader = next
		if n := strings.Count(next.Log(), `msg="listed events"`); n > 0 {
			t.Errorf("after the leader was %s, Events were listed again", how)
		}
	}
	stop()
	writers.Wait()
	wait.Until(t, "every state is delivered", func() bool { return len(ledger.missing(append(all, leader.seen()...))) == 0 })
	if code := leader.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	all = append(all, leader.seen()...)
	t.Logf("%d states written, %d lines were repeated", ledger.len(), wantIdenticalRepeats(t, all))
}

// After a graceful shutdown of the leader, nothing is sent again.
func TestRollingUpdateRepeatsNothing(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := replica("", toStdout)
	leader := start(t, c.Kubeconfig(), config)
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	awaitDelivered(t, leader, ledger)
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
		awaitLeading(leader)
	}
	stop()
	writers.Wait()
	wait.Until(t, "every state is delivered", func() bool { return len(ledger.missing(append(all, leader.seen()...))) == 0 })
	leader.terminate()
	if n := wantIdenticalRepeats(t, append(all, leader.seen()...)); n != 0 {
		t.Errorf("%d lines were repeated", n)
	}
}

// rewrite creates Events and updates each, so that the states between are only in etcd,
// and returns all states and the last ones.
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

// newest returns the highest version in a ledger.
func (l *ledger) newest(t *testing.T) (version uint64) {
	t.Helper()
	for _, e := range l.all() {
		version = max(version, mustParse(t, e.ResourceVersion))
	}
	return version
}

// One sink is down for so long that the API server cannot replay the states it lacks.
// After a failover it gets the remaining states and a gap; the other sink gets neither.
// When the first leader restarts with its journal, it delivers the records of the sink,
// also those in the gap.
func TestFailoverWithADeadSink(t *testing.T) { cluster.EachStore(t, failoverWithADeadSink) }

func failoverWithADeadSink(t *testing.T, store cluster.Store) {
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	sinks := toStdout + lokiSink(store.SinkURL(), "")
	kept := strings.Replace(replica(t.TempDir()+"/journal", sinks), "retry_period", "checkpoint_interval: 500ms, retry_period", 1)

	// Both sinks have a position: the store has accepted a record.
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := newLedger()
	mustCreate(t, first, client, newEvent("default", "first.", "first"))
	leader := start(t, c.Kubeconfig(), kept)
	awaitDelivered(t, leader, first)
	awaitStored(t, leader, store, first.all())
	pause(t.Context(), 2*time.Second) // the checkpoint has it
	store.Kill()

	during, last := rewrite(t, client, "during")
	awaitDelivered(t, leader, during)
	pause(t.Context(), 2*time.Second) // the checkpoint has the position of stdout
	// After the position of the store, before the one of stdout.
	if err := c.Compact(t.Context(), int64(during.newest(t)-1)); err != nil {
		t.Fatal(err)
	}
	leader.Kill()

	second := start(t, c.Kubeconfig(), replica("", sinks))
	awaitLeading(second)
	after := newLedger()
	mustCreate(t, after, client, newEvent("default", "after.", "after"))
	awaitDelivered(t, second, after)
	for _, s := range second.seen() {
		if len(after.missing([]state{s})) > 0 {
			t.Errorf("a healthy sink gets a state again: %s", s.line)
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
	awaitLeading(third)
	maps.Copy(want, during.all())
	awaitStored(t, third, store, want) // with the records in the journal of the first leader
	wantStoredWithGap(t, store, want)
	if n := len(third.seen()); n != 0 {
		t.Errorf("a healthy sink gets %d states again", n)
	}
	if code := third.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// withoutGaps removes gap records.
func withoutGaps(entries []cluster.LokiEntry) (others []cluster.LokiEntry) {
	for _, e := range entries {
		if e.Labels["reason"] != "HindsightGap" {
			others = append(others, e)
		}
	}
	return others
}

// gaps selects gap records.
const gaps = `{job="hindsight", reason="HindsightGap"}`

// wantStoredWithGap checks that the store has the states, each visible once, and
// one gap.
func wantStoredWithGap(t *testing.T, store cluster.Store, states map[string]*corev1.Event) {
	t.Helper()
	entries := stored(t, store, allStored)
	others := withoutGaps(entries)
	if n := len(entries) - len(others); n != 1 {
		t.Errorf("%d gaps are stored, want 1", n)
	}
	wantStored(t, others, states)
}
