//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// The configuration changes repeatedly while Events are written: nothing is lost, and
// nothing is listed again although the journal is in memory.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	dir := t.TempDir()
	config := func(i int) string {
		s := fmt.Sprintf("drain_timeout: %ds\nsinks:\n  - {name: out, stdout: {}}\n", 20+i)
		if i%2 == 1 {
			s += fmt.Sprintf("  - {name: warnings, match: '{type=\"Warning\"}', file: {path: %s/warnings-%d.jsonl}}\n", dir, i)
		}
		return s
	}
	p := start(t, c.Kubeconfig(), config(0))
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	awaitDelivered(t, p, ledger)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })
	const times = 8
	for i := range times {
		replaceConfig(t, p, config(i+1))
		if i > 0 { // the first change is detected without a signal
			if err := p.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		wait.Until(t, "configuration reloaded", func() bool { return strings.Count(p.Log(), "configuration reloaded") > i })
	}

	// An invalid configuration changes nothing.
	for change, message := range map[string]string{
		"journal: {dir: /tmp}\n":             "journal cannot be changed while running",
		"leader_election: {enabled: true}\n": "leader_election cannot be changed while running",
		"sincs: []\n":                        "unknown key",
	} {
		replaceConfig(t, p, change+config(times))
		p.untilLogged(message)
		if _, body := p.get("/metrics"); !strings.Contains(body, "\nhindsight_config_last_reload_successful 0\n") {
			t.Error("the metrics do not show that a configuration was rejected")
		}
	}
	before := ledger.len()
	wait.Until(t, "Events are written", func() bool { return ledger.len() > before+20 })
	stop()
	writers.Wait()
	awaitDelivered(t, p, ledger)
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	repeated := wantIdenticalRepeats(t, p.seen())
	if n := strings.Count(p.Log(), `msg="listed events"`); n != 1 {
		t.Errorf("Events were listed %d times, want once", n)
	}
	t.Logf("%d states written, %d reloads, %d lines were repeated", ledger.len(), times, repeated)
	if repeated > 0 {
		t.Errorf("%d lines were repeated, although each batch could be completed", repeated)
	}
}

func replaceConfig(t *testing.T, p *running, text string) {
	t.Helper()
	if err := p.ReplaceConfig(text); err != nil {
		t.Fatal(err)
	}
}

// A sink that is down does not prevent a reload, and its records wait for it.
func TestReloadWithADeadSink(t *testing.T) { cluster.EachStore(t, reloadWithADeadSink) }

func reloadWithADeadSink(t *testing.T, store cluster.Store) {
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := "cluster: " + clusterName + "\ndrain_timeout: 1s\nsinks:\n" + lokiSink(store.SinkURL(), "")
	p := start(t, c.Kubeconfig(), config)
	for i := range 20 {
		mustCreate(t, ledger, client, newEvent("default", fmt.Sprintf("early.%d.", i), "before the reload"))
	}
	wait.Until(t, "a push to the store fails", func() bool { return p.Logged("send failed") })
	replaceConfig(t, p, config+"  - {name: out, stdout: {}}\n")
	wait.Until(t, "configuration reloaded", func() bool { return p.Logged("configuration reloaded") })
	late := newLedger()
	for i := range 20 {
		e := newEvent("default", fmt.Sprintf("late.%d.", i), "after the reload")
		mustCreate(t, late, client, e)
	}
	awaitDelivered(t, p, late)
	if early := len(p.seen()); early != late.len() {
		t.Errorf("a new sink got %d states, want the %d written after it was added", early, late.len())
	}
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := ledger.all()
	for key, e := range late.all() {
		all[key] = e
	}
	awaitStored(t, p, store, all)
	wantStored(t, stored(t, store, allStored), all)
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// Events in the journal keep the level of their intake: a reload does not change it.
func TestReloadOfLevels(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	l := cluster.StoppedLokiForTest(t, cluster.LokiOptions{})
	client := newClient(t, c)
	ledger := newLedger()
	config := "cluster: " + clusterName + "\ndrain_timeout: 1s\n%ssinks:\n" + lokiSink(l.SinkURL(), "")
	p := start(t, c.Kubeconfig(), fmt.Sprintf(config, ""))
	mustCreate(t, ledger, client, newEvent("default", "early.", "before the reload"))
	wait.Until(t, "a push fails", func() bool { return p.Logged("send failed") })
	replaceConfig(t, p, fmt.Sprintf(config, "levels: {error: '{message=~\".* the reload\"}'}\n"))
	wait.Until(t, "configuration reloaded", func() bool { return p.Logged("configuration reloaded") })
	mustCreate(t, ledger, client, newEvent("default", "late.", "after the reload"))
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitStored(t, p, l, ledger.all())
	got := map[string]string{}
	for _, e := range stored(t, l, allStored) {
		for _, message := range []string{"before", "after"} {
			if strings.Contains(e.Line, message+" the reload") {
				got[message] = e.Metadata["detected_level"] + " " + e.Metadata["type"]
			}
		}
	}
	if want := map[string]string{"before": "info Normal", "after": "error Normal"}; !maps.Equal(got, want) {
		t.Errorf("levels and types are %v, want %v", got, want)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
