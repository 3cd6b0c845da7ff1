package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/program"
)

// scenario is one way to be busy.
type scenario struct {
	name       string
	backlog    int    // Events that are there at the start
	events     int    // written once the watch is open
	rate       int    // of them a second; 0: at once
	memory     bool   // the journal is in memory
	namespaces int    // that the Events are in; 0: some that make 2,300 streams
	held       bool   // Loki takes nothing until all are in the journal; measured is what comes then
	container  bool   // with GOMEMLIMIT as in deploy/, and below limits.memory there
	loki       bool   // a real Loki, with its default limits
	long       bool   // one round is enough
	note       string // on what is compared
}

var scenarios = []scenario{
	{name: "backlog-1k", backlog: 1_000},
	{name: "backlog-10k", backlog: 10_000},
	{name: "backlog-100k", backlog: 100_000},
	{name: "backlog-1m", backlog: 1_000_000},
	{name: "firehose", events: 200_000},
	{name: "drain", backlog: 500_000, held: true, note: "CPU from the return of Loki on; the floor is that of listing as many Events, which Hindsight has done before"},
	{name: "fat-backlog-1m", backlog: 1_000_000, namespaces: 4, note: "in 92 streams"},
	{name: "memory-backlog-100k", backlog: 100_000, memory: true},
	{name: "memory-backlog-1m", backlog: 1_000_000, memory: true},
	{name: "memory-drain", backlog: 50_000, held: true, memory: true, note: "as many as a journal in memory holds"},
	{name: "memory-firehose", events: 200_000, memory: true},
	{name: "container-backlog-1m", backlog: 1_000_000, container: true, long: true, note: "with GOMEMLIMIT as in deploy/kustomize, and below limits.memory"},
	{name: "steady", events: 30_000, rate: 500, long: true, note: "CPU while Events are written; the floor is that of a watch of as many, as slowly"},
	{name: "memory-steady", events: 30_000, rate: 500, memory: true, long: true},
	{name: "loki", events: 200_000, loki: true, long: true, note: "lag is the age of the oldest record behind, as Hindsight tells it"},
}

func (s *scenario) all() int { return s.backlog + s.events }

// bencher runs scenarios.
type bencher struct {
	options
	dir                   string
	hindsight, sim, floor string // binaries
	binaryBytes           int64
	patience              time.Duration // with what does not come
	rounds                int           // so far
}

// build builds Hindsight as it is released, and what it is measured with.
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

// measure runs a scenario for some rounds, in turns with the floor.
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
