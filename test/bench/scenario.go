package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/program"
)

// scenario is one kind of load.
type scenario struct {
	name      string
	backlog   int    // Events present at the start
	events    int    // Events written once the watch is open
	rate      int    // of them a second; 0: at once
	memory    bool   // the journal is in memory
	held      bool   // Loki refuses pushes until all Events are in the journal; the measurement begins then
	container bool   // with GOMEMLIMIT as in deploy/, and below limits.memory there
	loki      bool   // a real Loki with its default limits
	long      bool   // one round is enough
	note      string // on the comparison with the floor
}

// scenarios are the loads that decisions in docs/performance.md depend on.
var scenarios = []scenario{
	{name: "backlog-100k", backlog: 100_000},
	{name: "backlog-1m", backlog: 1_000_000, container: true, note: "with GOMEMLIMIT as in deploy/kustomize, and below limits.memory"},
	{name: "firehose", events: 200_000},
	{name: "drain", backlog: 500_000, held: true, note: "CPU from the return of Loki on; the floor lists as many Events, which Hindsight has done before"},
	{name: "memory-backlog-1m", backlog: 1_000_000, memory: true},
	{name: "steady", events: 30_000, rate: 500, long: true, note: "CPU while Events are written; the floor watches as many at the same rate"},
	{name: "loki", events: 200_000, loki: true, long: true, note: "lag is the age of the oldest record behind, as Hindsight reports it"},
}

func (s *scenario) all() int { return s.backlog + s.events }

// bencher runs scenarios.
type bencher struct {
	options
	dir                   string
	hindsight, sim, floor string // binaries
	binaryBytes           int64
	patience              time.Duration // timeout of each wait
	rounds                int           // so far
}

// build builds Hindsight, the sim and the floor as released.
func (b *bencher) build(ctx context.Context) error {
	for _, p := range []struct {
		to   *string
		name string
	}{
		{&b.hindsight, "cmd/hindsight"}, {&b.sim, "test/sim"}, {&b.floor, "test/bench/floor"},
	} {
		*p.to = filepath.Join(b.dir, filepath.Base(p.name))
		if err := program.BuildRelease(ctx, *p.to, p.name); err != nil {
			return err
		}
	}
	info, err := os.Stat(b.hindsight)
	if err != nil {
		return err
	}
	b.binaryBytes = info.Size()
	return nil
}

// measure runs rounds of a scenario, each with the floor.
func (b *bencher) measure(ctx context.Context, s scenario) (figures, error) {
	count := b.count
	if s.long {
		count = 1
	}
	best := figures{Scenario: s.name, Events: s.all()}
	for range count {
		f, err := b.round(ctx, s)
		if err != nil {
			return best, err
		}
		best.merge(f)
	}
	return best, nil
}
