//go:build e2e

// Package chaos lets everything go wrong, one thing after the other, while
// Events are written, and holds what came out against what was written.
//
// The sequence of faults follows from a seed, which is logged:
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

// While everything goes wrong, one thing after the other, nothing is lost and
// nothing is visible twice.
func TestChaos(t *testing.T) {
	t.Parallel() // with what does nothing but wait
	seed := *seed
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	t.Run("one replica", func(t *testing.T) {
		torment(t, seed, *length*2/5, "hindsight-0")
	})
	t.Run("two replicas", func(t *testing.T) {
		torment(t, seed, *length*3/5, "hindsight-0", "hindsight-1")
	})
}

// torment does one fault after the other, and then looks at what came out.
func torment(t *testing.T, seed uint64, length time.Duration, names ...string) {
	s := newScene(t, seed, names...)
	began := time.Now()
	for _, r := range s.replicas {
		s.start(r)
	}
	// What is overwritten before hindsight watches, nobody can see.
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
	s.note("nothing is written any more")
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

// faultsFor does one fault after the other for a time, each once before one
// comes again, and returns how many.
func (s *scene) faultsFor(length time.Duration) (done int) {
	s.t.Helper()
	wanted, err := regexp.Compile(*only)
	s.must(err)
	possible := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return f.several && !s.elects || !wanted.MatchString(f.name)
	})
	if len(possible) == 0 {
		s.t.Fatalf("no fault is called %q", *only)
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

// do does a fault. Its draws are its own, so that how the one before went does
// not change them.
func (s *scene) do(f fault, number int) {
	s.t.Helper()
	r := rand.New(rand.NewPCG(s.seed, uint64(number)<<32))
	calm, hurry := r.IntN(3) > 0, between(r, 0, time.Second)
	if f.calm || calm {
		s.settle()
	} else {
		s.pause(hurry) // with whatever the last one has left to do
	}
	s.checkRepeats()
	s.note("fault %d: %s", number, f.name)
	s.begin(number, f.name)
	f.do(s, r)
	s.end()
	s.note("fault %d is over, %d states were written so far", number, len(s.ledger.all()))
}

// What has to come again after a fault is a batch, or what was accepted since
// the last renewal of the Lease; and where that was amid a list, the list, with
// all that was written while nobody watched. This is far more, and far less than
// everything.
const mostRepeats = 25 * writesPerSecond

// checkRepeats looks at what came again since it did so last.
func (s *scene) checkRepeats() {
	s.t.Helper()
	s.account.update(s.t.Context())
	for _, o := range s.account.outputs {
		n := o.repeats - o.counted
		o.counted = o.repeats
		if n > 0 {
			s.note("%d lines have come again on %s", n, o.name)
		}
		if n > mostRepeats {
			s.t.Errorf("%d lines have come again on %s since the last fault began, want no more than %d", n, o.name, mostRepeats)
		}
	}
}

// check holds everything that came out, read once more, against what was
// written.
func (s *scene) check(began time.Time) {
	s.t.Helper()
	a := s.account
	a.update(s.t.Context())
	for _, store := range s.stores {
		if err := store.readAll(s.t.Context(), began.Add(-time.Minute).Truncate(time.Second), time.Now().Add(2*time.Second)); err != nil {
			s.t.Fatal(err)
		}
	}
	x := a.index()
	for _, store := range s.stores {
		o := store.output
		o.open = slices.DeleteFunc(o.lacks(s.ledger.all()), func(s *state) bool { return o.excused(s, x) })
	}
	if missing := a.missing(len(s.ledger.all())); len(missing) > 0 {
		s.t.Errorf("states are missing (seed %d)\n%s\n%s", s.seed, a.describe(missing, s.history), s.logs(earliest(missing).Add(-time.Second)))
	}
	wrong := append(a.checkGaps(s.compactions), a.checkMarks()...)
	for _, o := range a.outputs {
		for _, what := range o.wrong {
			wrong = append(wrong, o.name+": "+what)
		}
	}
	wrong = append(wrong, s.checkProcesses()...)
	wrong = append(wrong, s.checkDeadLetters()...)
	const most = 20
	for _, what := range wrong[:min(most, len(wrong))] {
		s.t.Error(what)
	}
	if len(wrong) > most {
		s.t.Errorf("… and %d more", len(wrong)-most)
	}

	for _, o := range a.outputs {
		s.t.Logf("%s has %d states, %d lines came again, %d gaps were declared, in which %d states are missing",
			o.name, len(o.seen), o.repeats, len(o.gaps), len(o.lacks(s.ledger.all())))
	}
}

// checkProcesses returns what is wrong with how processes ended, and what they
// should not have said.
func (s *scene) checkProcesses() (wrong []string) {
	for _, r := range s.replicas {
		for _, life := range r.lives() {
			said := life.said()
			for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "Loki rejected a record for good"} {
				if i := strings.Index(said, bad); i >= 0 {
					wrong = append(wrong, fmt.Sprintf("%s said (%s)\n%.4000s", &life, life.log, said[i:]))
				}
			}
			// Who has lost the Lease ends.
			if life.ended && life.asked == "" && !(s.elects && life.lostLease()) {
				wrong = append(wrong, fmt.Sprintf("%s has ended by itself: %s\n%s", &life, describe(life.exit), lastLines(said, 10)))
			}
		}
	}
	return wrong
}

// checkDeadLetters returns what a sink has given up.
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
