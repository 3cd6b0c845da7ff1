//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// With a journal in a directory, a process that is killed goes on where it was:
// nothing is lost, nothing is listed again, and what comes again is what was in
// flight.
func TestKilledAgainAndAgain(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	ledger := newLedger()
	config := fmt.Sprintf("journal: {dir: %s/journal}\nsinks: [{name: out, stdout: {}}]\n", t.TempDir())
	var all []state
	p := start(t, c.Kubeconfig(), config)
	mustPut(t, ledger, client, newEvent("default", "first.", "first"))
	wantAll(t, p, ledger)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })
	const kills = 10
	for i := range kills {
		pause(t.Context(), time.Duration(200+rand.IntN(1500))*time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.done
		all = append(all, p.seen()...)
		if listed := strings.Count(p.said(), `msg="listed events"`); i > 0 && listed > 0 {
			t.Errorf("after kill %d everything was listed again:\n%s", i, p.said())
		}
		p = start(t, c.Kubeconfig(), config)
	}
	stop()
	writers.Wait()
	p.eventually("every state has come out", func() bool { return len(ledger.missing(append(all, p.seen()...))) == 0 })
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	all = append(all, p.seen()...)

	lines := map[string]string{}
	repeated := 0
	for _, s := range all {
		if before, again := lines[s.key()]; again {
			repeated++
			if before != s.line {
				t.Errorf("came again in other bytes:\n%s%s", before, s.line)
			}
		}
		lines[s.key()] = s.line
		if s.Event.Reason == "HindsightGap" {
			t.Errorf("a gap was declared where there was none: %s", s.Event.Message)
		}
	}
	t.Logf("%d states written, %d kills, %d lines came again", ledger.len(), kills, repeated)
	// A batch holds 64 KiB of lines, of about a kilobyte each.
	if repeated > kills*70 {
		t.Errorf("%d lines came again after %d kills, want no more than a batch for each", repeated, kills)
	}
}
