package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/program"
)

// scenario is one kind of load.
type scenario struct {
	name      string
	backlog   int           // Events present at the start
	events    int           // states written once the watch is open
	rate      int           // of them a second; 0: at once. Only the period in which they are written is measured
	warmup    int           // states written at that rate before
	streams   int           // 0: 2000
	zipf      float64       // exponent of their rates; 0: all are equal
	memory    bool          // the journal is in memory
	held      bool          // Loki refuses pushes until all Events are in the journal; the measurement begins then
	container bool          // with GOMEMLIMIT as in deploy/, and below limits.memory there
	loki      bool          // a real Loki with its default limits; at a rate, its CPU is measured
	sinks     int           // more than one: beside Hindsight with one, instead of the floor
	standby   time.Duration // for so long, a second Hindsight is measured that waits for the Lease
	long      bool          // one pair is enough
	targets   targets
	note      string // on the comparison with the floor
}

// targets are the highest values that figures should have; 0: any.
type targets struct {
	ratio   float64 // CPU compared with the floor
	peer    float64 // with the peer
	percent float64 // CPU, of a core
	lag     float64 // its 99th percentile, in seconds
	warning float64 // the median lag of Warnings, in seconds
	peak    float64 // resident memory in MB
	anon    float64 // of it anonymous, in MB
	sink    float64 // anonymous memory of one more sink in MB
}

// missed returns the figures that are higher.
func (t targets) missed(f *figures) (missed []string) {
	for _, one := range []struct {
		unit      string
		got, most float64
	}{
		{"times the CPU of the floor", f.Ratio.Median, t.ratio},
		{"times the CPU of the peer", f.PeerRatio.Median, t.peer},
		{"% of a core", f.rates().Cores * 100, t.percent},
		{"s of lag (99th percentile)", f.Received.LagNinetyNine, t.lag},
		{"s of lag of Warnings (median)", f.Received.WarningMedian, t.warning},
		{"MB resident", float64(f.Used.peakBytes) / 1e6, t.peak},
		{"MB of anonymous memory", float64(f.Used.anonBytes) / 1e6, t.anon},
		{"MB for one more sink", f.SinkBytes.Median / 1e6, t.sink},
	} {
		if one.most > 0 && one.got > one.most {
			missed = append(missed, fmt.Sprintf("%.2f %s, want at most %v", one.got, one.unit, one.most))
		}
	}
	return missed
}

// scenarios are the loads that decisions in docs/performance.md depend on.
var scenarios = []scenario{
	{name: "backlog-100k", backlog: 100_000, targets: targets{ratio: 1.5}},
	{name: "backlog-1m", backlog: 1_000_000, container: true, targets: targets{peak: 46}, note: "with GOMEMLIMIT as in deploy/kustomize, and below limits.memory"},
	{name: "firehose", events: 200_000},
	{name: "drain", backlog: 500_000, held: true, note: "CPU from the return of Loki on; the floor lists as many Events, which Hindsight has done before"},
	{name: "memory-backlog-100k", backlog: 100_000, memory: true, targets: targets{peak: 64}},
	{name: "memory-backlog-1m", backlog: 1_000_000, memory: true},
	{name: "steady", events: 9000, warmup: 2500, rate: 500, long: true, targets: targets{ratio: 1.8, peer: 1, lag: 5, warning: 1.1}},
	{name: "steady-200", events: 9000, warmup: 2500, rate: 500, streams: 200, long: true, targets: targets{ratio: 1.5, lag: 5, warning: 1.1}},
	{name: "steady-zipf", events: 9000, warmup: 2500, rate: 500, zipf: 0.9, long: true, targets: targets{ratio: 1.6, lag: 5, warning: 1.1}},
	{name: "slow", events: 200, warmup: 50, rate: 10, long: true, targets: targets{percent: 0.5}},
	{name: "standby", standby: 20 * time.Second, long: true, targets: targets{anon: 5}},
	{name: "sinks", events: 1000, warmup: 500, rate: 100, sinks: 11, targets: targets{sink: 0.6}, note: "11 Loki sinks; the floor is Hindsight with one"},
	{name: "loki-steady", events: 30_000, warmup: 5000, rate: 500, loki: true, long: true, targets: targets{peer: 2}, note: "CPU, wake-ups and memory are those of Loki; the floor is an idle Loki"},
	{name: "loki", events: 200_000, loki: true, long: true, note: "lag is the age of the oldest record behind, as Hindsight reports it"},
}

func (s *scenario) all() int { return s.backlog + s.warmup + s.events }

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

// measure runs pairs of a scenario. It returns the figures of Hindsight, and of the peer.
func (b *bencher) measure(ctx context.Context, s scenario) (rows []figures, err error) {
	pairs := b.pairs
	if pairs == 0 {
		if pairs = 3; s.long {
			pairs = 1
		}
	}
	if s.loki && s.rate > 0 && b.minutes > 0 {
		s.events = b.minutes * 60 * s.rate
	}
	var all [2][]figures
	for range pairs {
		rows, err := b.pair(ctx, s)
		if err != nil {
			return nil, err
		}
		for i, f := range rows {
			all[i] = append(all[i], f)
		}
	}
	for i, of := range all {
		if of == nil {
			continue
		}
		f := median(of)
		if i == 0 {
			f.Misses = s.targets.missed(&f)
		}
		rows = append(rows, f)
	}
	return rows, nil
}
