//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

// With a journal in a directory, a killed process resumes from its position: nothing is
// lost, nothing is listed again, and only records in flight are repeated.
func TestRepeatedKills(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := fmt.Sprintf("journal: {dir: %s/journal}\nsinks: [{name: out, stdout: {}}]\n", t.TempDir())
	var all []state
	p := start(t, c.Kubeconfig(), config)
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	awaitDelivered(t, p, ledger)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })
	const kills = 10
	for i := range kills {
		pause(t.Context(), time.Duration(200+rand.IntN(1500))*time.Millisecond)
		p.Kill()
		all = append(all, p.seen()...)
		if listed := strings.Count(p.Log(), `msg="listed events"`); i > 0 && listed > 0 {
			t.Errorf("after kill %d Events were listed again:\n%s", i, p.Log())
		}
		p = start(t, c.Kubeconfig(), config)
	}
	stop()
	writers.Wait()
	wait.Until(t, "every state is delivered", func() bool { return len(ledger.missing(append(all, p.seen()...))) == 0 })
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	all = append(all, p.seen()...)

	repeated := wantIdenticalRepeats(t, all)
	t.Logf("%d states written, %d kills, %d lines were repeated", ledger.len(), kills, repeated)
	// A batch holds 64 KiB of lines, of about a kilobyte each.
	if repeated > kills*70 {
		t.Errorf("%d lines were repeated after %d kills, want at most a batch for each", repeated, kills)
	}
}

// wantIdenticalRepeats checks that repeated lines have the same bytes and that no gap was
// declared, and returns the number of repeated lines.
func wantIdenticalRepeats(t *testing.T, all []state) (repeated int) {
	t.Helper()
	lines := map[string]string{}
	for _, s := range all {
		if before, again := lines[s.key()]; again {
			repeated++
			if before != s.line {
				t.Errorf("repeated with other bytes:\n%s%s", before, s.line)
			}
		}
		lines[s.key()] = s.line
		if s.Event.Reason == "HindsightGap" {
			t.Errorf("a gap was declared without a cause: %s", s.Event.Message)
		}
	}
	return repeated
}

// The store is down, hindsight is killed meanwhile, and the cluster deletes all Events
// before the store restarts.
func TestOutageLongerThanTheEventTTL(t *testing.T) { cluster.EachStore(t, outageLongerThanTheEventTTL) }

func outageLongerThanTheEventTTL(t *testing.T, store cluster.Store) {
	c := cluster.ForTest(t, cluster.Options{EventTTL: 15 * time.Second})
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, c)
	ledger := newLedger()
	config := fmt.Sprintf("cluster: %s\njournal: {dir: %s/journal}\nsinks:\n", clusterName, t.TempDir()) + lokiSink(store.SinkURL(), "")
	p := start(t, c.Kubeconfig(), config)
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	awaitStored(t, p, store, ledger.all())

	store.Kill()
	for range 2 {
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
		var writers sync.WaitGroup
		writers.Go(func() { recordCore(ctx, t, client, ledger) })
		writers.Go(func() { writePlain(ctx, client, ledger) })
		writers.Wait()
		stop()
		p.Kill()
		p = start(t, c.Kubeconfig(), config)
	}
	wait.Until(t, "hindsight watches again", func() bool { return p.Logged("reading events") })
	awaitDeleted(t, client)
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitStored(t, p, store, ledger.all())
	wantStored(t, stored(t, store, allStored), ledger.all())
	wantNoShards(t, store)
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	t.Logf("%d states, none of them left in the cluster", ledger.len())
}

// awaitDeleted waits until the API server has deleted all Events except its own.
func awaitDeleted(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	wait.Success(t, "the API server has deleted all Events", func() error {
		left, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ours := slices.DeleteFunc(left.Items, func(e corev1.Event) bool { return cluster.EventByAPIServer(&e) })
		if len(ours) > 0 {
			return fmt.Errorf("it has %d", len(ours))
		}
		return nil
	})
}

// Rotated files have every state, even if the process is killed.
func TestFileHoldsEverything(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	dir := t.TempDir()
	config := fmt.Sprintf("journal: {dir: %s/journal}\nsinks: [{name: out, file: {path: %s/events.jsonl, max_size: 64KiB, keep: 0}}]\n", t.TempDir(), dir)
	written := func() []state {
		files, err := filepath.Glob(dir + "/events*.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		var lines states
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it has been rotated meanwhile
			}
			_, _ = lines.Write(text)
		}
		return lines.seen()
	}
	p := start(t, c.Kubeconfig(), config)
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	wait.Until(t, "the first is written", func() bool { return len(ledger.missing(written())) == 0 })

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })
	const kills = 4
	for range kills {
		pause(t.Context(), time.Duration(500+rand.IntN(1000))*time.Millisecond)
		p.Kill()
		p = start(t, c.Kubeconfig(), config)
	}
	stop()
	writers.Wait()
	wait.Until(t, "everything is written", func() bool { return len(ledger.missing(written())) == 0 })
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	files, err := filepath.Glob(dir + "/events-*.jsonl")
	if err != nil || len(files) < 2 {
		t.Errorf("%d files were rotated, want several", len(files))
	}
	for _, path := range files {
		if info, err := os.Stat(path); err != nil || info.Size() > 64<<10 {
			t.Errorf("%s is larger than max_size", path)
		}
	}
	t.Logf("%d states written, %d files, %d kills, %d lines were repeated", ledger.len(), len(files)+1, kills, wantIdenticalRepeats(t, written()))
}
