//go:build e2e

// Package chaos injects one fault after the other while Events are written, and compares the
// content of all sinks with the written Events.
//
// A seed determines the sequence of faults; it is logged:
//
//	go test -race -tags e2e ./test/chaos -v -chaos.seed=42 -chaos.length=10m
package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/program"
)

var (
	seed   = flag.Uint64("chaos.seed", 1, "seed of the sequence of faults; 0: random")
	length = flag.Duration("chaos.length", time.Minute, "how long faults are injected, in all")
	only   = flag.String("chaos.only", "", "`regexp` of the faults to inject; empty: all")
	keepIn = flag.String("chaos.dir", "", "`directory` in which to keep the output of the processes; empty: only if a test fails")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(program.Main(m, "-race"))
}

// While one fault follows another, no state is lost and none is visible twice.
func TestChaos(t *testing.T) {
	t.Parallel() // TestStalls mostly waits
	seed := *seed
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	t.Run("one replica", func(t *testing.T) {
		injectFaults(t, seed, *length*2/5, "hindsight-0")
	})
	t.Run("two replicas", func(t *testing.T) {
		injectFaults(t, seed, *length*3/5, "hindsight-0", "hindsight-1")
	})
}

// injectFaults injects one fault after the other, and then checks all sinks.
func injectFaults(t *testing.T, seed uint64, length time.Duration, names ...string) {
	s := newScene(t, seed, names...)
	began := time.Now()
	for _, r := range s.replicas {
		s.start(r)
	}
	// An Event exists before hindsight watches; it is not overwritten.
	s.must(newWriter(s.client, s.ledger, seed, 0).once(t.Context()))
	s.settle()
	s.awaitLeader(nil)

	ctx, stop := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		write(ctx, s.client, s.ledger, seed)
	}()
	defer func() {
		stop()
		<-written
	}()
	s.awaitWrites(100)

	done := s.faultsFor(length)
	s.settle()
	s.checkRepeats()
	stop()
	<-written
	s.note("the writers have stopped")
	s.settle()
	for _, r := range s.replicas {
		if err := r.terminate(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s.check(began)
	t.Logf("%d states were written, and %d may or may not have been, in %v with %d faults",
		len(s.ledger.all()), s.ledger.failures(), time.Since(began).Round(time.Second), done)
}

// faultsFor injects one fault after the other for a time, each once before any is
// repeated, and returns their number.
func (s *scene) faultsFor(length time.Duration) (done int) {
	s.t.Helper()
	wanted, err := regexp.Compile(*only)
	s.must(err)
	possible := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return f.several && !s.elects || !wanted.MatchString(f.name)
	})
	if len(possible) == 0 {
		s.t.Fatalf("no fault matches %q", *only)
	}
	for began := time.Now(); ; {
		order := rand.New(rand.NewPCG(s.seed, uint64(done))).Perm(len(possible))
		for _, i := range order {
			if time.Since(began) >= length {
				return done
			}
			done++
			s.do(possible[i], done)
		}
	}
}

// do injects a fault. Its random numbers do not depend on the course of the faults
// before.
func (s *scene) do(f fault, number int) {
	s.t.Helper()
	r := rand.New(rand.NewPCG(s.seed, uint64(number)<<32))
	calm, hurry := r.IntN(3) > 0, between(r, 0, time.Second)
	if f.calm || calm {
		s.settle()
	} else {
		s.pause(hurry) // the consequences of the last fault may still be in progress
	}
	s.checkRepeats()
	s.note("fault %d: %s", number, f.name)
	s.begin(number, f.name)
	f.do(s, r)
	s.end()
	s.note("fault %d has ended, %d states were written so far", number, len(s.ledger.all()))
}

// maxRepeats bounds the repeated lines after a fault. Expected are a batch, or the
// records accepted since the last renewal of the Lease; in the middle of a list, the
// list and all states written while no replica watched. The bound is far more than
// that, and far less than everything.
const maxRepeats = 25 * writesPerSecond

// checkRepeats checks the number of repeated lines since its last call.
func (s *scene) checkRepeats() {
	s.t.Helper()
	s.comparison.update(s.t.Context())
	for _, o := range s.comparison.outputs {
		n := o.repeats - o.counted
		o.counted = o.repeats
		if n > 0 {
			s.note("%d lines were repeated in %s", n, o.name)
		}
		if n > maxRepeats {
			s.t.Errorf("%d lines were repeated in %s since the last fault began, want at most %d", n, o.name, maxRepeats)
		}
	}
}

// check reads all sinks once more and compares them with the ledger.
func (s *scene) check(began time.Time) {
	s.t.Helper()
	a := s.comparison
	a.update(s.t.Context())
	for _, store := range s.stores {
		if err := store.readAll(s.t.Context(), began.Add(-time.Minute).Truncate(time.Second), time.Now().Add(2*time.Second)); err != nil {
			s.t.Fatal(err)
		}
	}
	x := a.index()
	for _, store := range s.stores {
		o := store.output
		o.open = slices.DeleteFunc(o.missingOf(s.ledger.all()), func(s *state) bool { return o.inGap(s, x) })
	}
	if missing := a.missing(len(s.ledger.all())); len(missing) > 0 {
		s.t.Errorf("states are missing (seed %d)\n%s\n%s", s.seed, a.describe(missing, s.history), s.logs(earliest(missing).Add(-time.Second)))
	}
	wrong := append(a.checkGaps(s.compactions), a.checkMarks()...)
	for _, o := range a.outputs {
		for _, w := range o.wrong {
			wrong = append(wrong, o.name+": "+w)
		}
	}
	wrong = append(wrong, s.checkProcesses()...)
	wrong = append(wrong, s.checkDeadLetters()...)
	const most = 20
	for _, w := range wrong[:min(most, len(wrong))] {
		s.t.Error(w)
	}
	if len(wrong) > most {
		s.t.Errorf("… and %d more", len(wrong)-most)
	}

	for _, o := range a.outputs {
		s.t.Logf("%s has %d states, %d repeated lines, %d gaps, and lacks %d states in them",
			o.name, len(o.seen), o.repeats, len(o.gaps), len(o.missingOf(s.ledger.all())))
	}
}

// checkProcesses returns unexpected exits and log messages.
func (s *scene) checkProcesses() (wrong []string) {
	for _, r := range s.replicas {
		for _, run := range r.allRuns() {
			text := run.logText()
			for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "Loki rejected a record for good"} {
				if i := strings.Index(text, bad); i >= 0 {
					wrong = append(wrong, fmt.Sprintf("%s logged (%s)\n%.4000s", &run, run.log, text[i:]))
				}
			}
			// A replica that loses the Lease exits.
			if run.ended && run.stoppedBy == "" && !(s.elects && run.lostLease()) {
				wrong = append(wrong, fmt.Sprintf("%s has ended by itself: %s\n%s", &run, describe(run.exit), lastLines(text, 10)))
			}
		}
	}
	return wrong
}

// checkDeadLetters returns the dead letters, of which there should be none.
func (s *scene) checkDeadLetters() (wrong []string) {
	for _, r := range s.replicas {
		paths, err := filepath.Glob(filepath.Join(r.journalDir(), "dead-letters", "*"))
		s.must(err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			s.must(err)
			if len(text) > 0 {
				wrong = append(wrong, fmt.Sprintf("%s is not empty: %.2000s", path, text))
			}
		}
	}
	return wrong
}
