package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// scenario is one way to be busy.
type scenario struct {
	name    string
	backlog int  // Events that are there at the start
	events  int  // written once the watch is open
	rate    int  // of them a second; 0: at once
	memory  bool // the journal is in memory
	held    bool // Loki takes nothing until all are in the journal; measured is what comes then
	loki    bool // a real Loki, with its default limits
	long    bool // one round is enough
}

var scenarios = []scenario{
	{name: "backlog-1k", backlog: 1_000},
	{name: "backlog-10k", backlog: 10_000},
	{name: "backlog-100k", backlog: 100_000},
	{name: "backlog-1m", backlog: 1_000_000},
	{name: "firehose", events: 200_000},
	{name: "drain", backlog: 500_000, held: true},
	{name: "memory-backlog-100k", backlog: 100_000, memory: true},
	{name: "memory-firehose", events: 200_000, memory: true},
	{name: "steady", events: 30_000, rate: 500, long: true},
	{name: "loki", events: 200_000, loki: true, long: true},
}

func (s *scenario) all() int { return s.backlog + s.events }

// bencher runs scenarios.
type bencher struct {
	options
	dir                   string
	hindsight, sim, floor string // binaries
	binaryBytes           int64
	rounds                int // so far
}

// build builds Hindsight as it is released, and what it is measured with.
func (b *bencher) build(ctx context.Context) error {
	for _, p := range []struct {
		to      *string
		name    string
		release bool
	}{
		{&b.hindsight, "cmd/hindsight", true},
		{&b.sim, "test/sim", false},
		{&b.floor, "test/bench/floor", false},
	} {
		*p.to = filepath.Join(b.dir, filepath.Base(p.name))
		if err := build(ctx, *p.to, "github.com/hindsight-events/hindsight/"+p.name, p.release); err != nil {
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

// round is one round of a scenario.
func (b *bencher) round(ctx context.Context, s scenario) (f figures, err error) {
	b.rounds++
	dir := filepath.Join(b.dir, fmt.Sprintf("%03d-%s", b.rounds, s.name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return f, err
	}
	if !b.keep {
		defer func() {
			if err == nil {
				err = os.RemoveAll(dir)
			}
		}()
	}
	if !s.held && s.rate == 0 {
		if f.Floor, err = b.floorRound(ctx, s, dir); err != nil {
			return f, err
		}
	}
	sim, err := startSim(ctx, b.sim, dir, s.backlog)
	if err != nil {
		return f, err
	}
	defer sim.kill()
	h := &hindsight{binary: b.hindsight, dir: dir, sim: sim, env: b.env, memory: s.memory, loki: sim.url, profiled: b.profiles != ""}
	if s.loki {
		l, err := cluster.StartLoki(ctx, cluster.LokiOptions{Dir: filepath.Join(dir, "loki")})
		if err != nil {
			return f, err
		}
		defer l.Kill()
		h.loki, h.limited = l.URL(), true
	}
	if s.held {
		if err := sim.behave(ctx, "status=503"); err != nil {
			return f, err
		}
	}
	if err := h.start(ctx); err != nil {
		return f, err
	}
	defer h.kill()
	writeProfiles := func() error { return nil }
	if b.profiles != "" {
		if err := h.waitFor(ctx, cpu, 0); err != nil { // it answers
			return f, err
		}
		writeProfiles = h.profile(ctx, filepath.Join(b.profiles, s.name))
	}

	began := h.started
	var before metrics
	switch {
	case s.events > 0:
		if _, err := sim.received(ctx, 0, 1); err != nil {
			return f, err
		}
		began = time.Now()
		if s.rate > 0 {
			before, err = h.metrics(ctx)
		}
		if err == nil {
			err = sim.write(ctx, s.events, s.rate)
		}
	case s.held:
		if err := h.waitFor(ctx, behind, float64(s.backlog)); err != nil {
			return f, err
		}
		before, err = h.metrics(ctx)
		if err == nil {
			err = sim.behave(ctx, "")
		}
	}
	if err != nil {
		return f, err
	}
	if err := h.waitFor(ctx, sent, float64(s.all())); err != nil {
		return f, err
	}
	ended := time.Now()
	after, err := h.metrics(ctx)
	if err != nil {
		return f, err
	}
	received, err := sim.received(ctx, 0, 0)
	if err != nil {
		return f, err
	}
	if s.held {
		began = received.First
	}
	if !received.Last.IsZero() {
		ended = received.Last
	}
	if err := writeProfiles(); err != nil {
		return f, err
	}
	used, err := h.stop(ctx)
	if err != nil {
		return f, err
	}

	f.CPU = used.cpu.Seconds()
	if before != nil {
		f.CPU = after[cpu] - before[cpu]
	}
	f.Seconds = ended.Sub(began).Seconds()
	f.PeakBytes = used.peakBytes
	f.Allocations = (after[allocations] - before[allocations]) / float64(s.all())
	f.Retries = after[retries]
	if !received.First.IsZero() {
		if !s.held {
			f.First = received.First.Sub(began).Seconds()
		}
		f.Received = &received
		if missing := s.all() - received.Entries; missing > 0 {
			return f, fmt.Errorf("%d of %d Events did not arrive", missing, s.all())
		}
	}
	return f, nil
}

// floorRound is what the floor takes for the same Events.
func (b *bencher) floorRound(ctx context.Context, s scenario, dir string) (usage, error) {
	sim, err := startSim(ctx, b.sim, dir, s.backlog)
	if err != nil {
		return usage{}, err
	}
	defer sim.kill()
	p, err := startProcess(b.floor, filepath.Join(dir, "floor.log"), nil,
		"-server", sim.url, "-watch", fmt.Sprint(s.events))
	if err != nil {
		return usage{}, err
	}
	defer p.kill()
	if s.events > 0 {
		if _, err := sim.received(ctx, 0, 1); err != nil {
			return usage{}, err
		}
		if err := sim.write(ctx, s.events, s.rate); err != nil {
			return usage{}, err
		}
	}
	return p.wait(ctx)
}
