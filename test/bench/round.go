package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// pair measures the floor, then Hindsight.
func (b *bencher) pair(ctx context.Context, s scenario) (f figures, err error) {
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
	floor, err := b.floorRound(ctx, s, dir)
	if err != nil {
		return f, err
	}
	if f, err = b.hindsightRound(ctx, s, dir); err != nil {
		return f, err
	}
	f.Floor = floor
	return f, nil
}

func (b *bencher) hindsightRound(ctx context.Context, s scenario, dir string) (f figures, err error) {
	sim, err := startSim(ctx, b.sim, dir, s)
	if err != nil {
		return f, err
	}
	defer sim.Kill()
	h := &hindsight{
		binary: b.hindsight, dir: dir, sim: sim, env: b.env, exec: b.exec, patience: b.patience,
		memory: s.memory, loki: sim.url, profiled: b.profiles != "",
	}
	if s.loki {
		l, err := cluster.StartLoki(ctx, cluster.LokiOptions{Dir: filepath.Join(dir, "loki")})
		if err != nil {
			return f, err
		}
		defer l.Kill()
		h.loki, h.limited = l.URL(), true
	}
	var granted container
	if s.container {
		if granted, err = readContainer(ctx); err != nil {
			return f, err
		}
		h.env = append([]string{"GOMEMLIMIT=" + granted.goMemLimit}, b.env...)
	}
	if s.held {
		if err := sim.behave(ctx, "status=503"); err != nil {
			return f, err
		}
	}
	if err := h.start(ctx); err != nil {
		return f, err
	}
	defer h.Kill()
	writeProfiles := func() error { return nil }
	if b.profiles != "" {
		if err := h.waitFor(ctx, cpu, 0); err != nil { // it answers
			return f, err
		}
		writeProfiles = h.profile(ctx, filepath.Join(b.profiles, s.name), b.profileSeconds)
	}

	measure := b.bulk
	if s.rate > 0 {
		measure = b.steady
	}
	if f, err = measure(ctx, s, h); err != nil {
		return f, err
	}
	f.Scenario, f.Note = s.name, s.note
	if err := writeProfiles(); err != nil {
		return f, err
	}
	used, err := h.stop(ctx)
	if err != nil {
		return f, err
	}
	if f.Used.cpu == 0 {
		f.Used.cpu = used.cpu
	}
	f.Used.peakBytes, f.Used.anonBytes = used.peakBytes, cmp.Or(f.Used.anonBytes, used.anonBytes)
	if s.container {
		return f, granted.holds(used.peakBytes)
	}
	return f, nil
}

// bulk measures until all Events have arrived.
func (b *bencher) bulk(ctx context.Context, s scenario, h *hindsight) (f figures, err error) {
	began, before, err := b.work(ctx, s, h)
	if err != nil {
		return f, err
	}
	if !s.loki {
		if err := h.waitForArrival(ctx, s.all()); err != nil {
			return f, err
		}
	}
	if err := h.waitFor(ctx, sent, float64(s.all())); err != nil {
		return f, err
	}
	ended := time.Now()
	after, err := h.metrics(ctx)
	if err != nil {
		return f, err
	}
	if f.Received, err = b.received(ctx, s, h, began); err != nil {
		return f, err
	}
	if !f.Received.First.IsZero() {
		f.First = f.Received.First.Sub(began).Seconds()
		ended = f.Received.Last
		if s.held {
			began = f.Received.First
		}
	}
	f.Events = s.all()
	f.Seconds = ended.Sub(began).Seconds()
	if s.held {
		f.Used.cpu = time.Duration((after[cpu] - before[cpu]) * float64(time.Second))
	}
	f.Allocations = (after[allocations] - before[allocations]) / float64(f.Events)
	f.Retries = after[retries] - before[retries]
	return f, nil
}

// steady measures while Events are written at a rate. The records that wait at the end count
// instead of those that waited at the start.
func (b *bencher) steady(ctx context.Context, s scenario, h *hindsight) (f figures, err error) {
	var read []metrics
	var pushed []received
	began := time.Now()
	f.Used, err = b.writeSteadily(ctx, s, h.sim, h.process, func() error {
		m, err := h.metrics(ctx)
		if err != nil {
			return err
		}
		r, err := h.sim.received(ctx, 0, 0, time.Time{})
		read, pushed = append(read, m), append(pushed, r)
		return err
	})
	if err != nil {
		return f, err
	}
	if err := h.waitForArrival(ctx, s.all()); err != nil {
		return f, err
	}
	if f.Received, err = b.received(ctx, s, h, began); err != nil {
		return f, err
	}
	f.Received.Entries = pushed[1].Entries - pushed[0].Entries
	f.Received.Pushes = pushed[1].Pushes - pushed[0].Pushes
	f.Received.Bytes = pushed[1].Bytes - pushed[0].Bytes
	f.Received.CountedBytes = pushed[1].CountedBytes - pushed[0].CountedBytes
	f.Events, f.Seconds = s.events, float64(s.events)/float64(s.rate)
	f.Allocations = (read[1][allocations] - read[0][allocations]) / float64(s.events)
	f.Retries = read[1][retries] - read[0][retries]
	return f, nil
}

// writeSteadily writes Events at a rate while p watches, and returns what p has used meanwhile,
// without the first ones. It calls look before and after the measured period.
func (b *bencher) writeSteadily(ctx context.Context, s scenario, sim *sim, p *process, look func() error) (used usage, err error) {
	if err := sim.waitForWatch(ctx, p, b.patience); err != nil {
		return used, err
	}
	if err := sim.write(ctx, s.warmup, s.rate); err != nil {
		return used, err
	}
	if err := look(); err != nil {
		return used, err
	}
	before, err := usageSoFar(p.PID())
	if err != nil {
		return used, err
	}
	if err := sim.write(ctx, s.events, s.rate); err != nil {
		return used, err
	}
	after, err := usageSoFar(p.PID())
	if err != nil {
		return used, err
	}
	return after.since(before), look()
}

// work starts the load beyond the backlog, and returns its start. before holds the metrics at
// that time if only the following period is measured.
func (b *bencher) work(ctx context.Context, s scenario, h *hindsight) (began time.Time, before metrics, err error) {
	if s.events > 0 {
		if err := h.sim.waitForWatch(ctx, h.process, b.patience); err != nil {
			return began, nil, err
		}
		began = time.Now()
		return began, nil, h.sim.write(ctx, s.events, 0)
	}
	if s.held {
		if err := h.waitFor(ctx, behind, float64(s.backlog)); err != nil {
			return began, nil, err
		}
		if before, err = h.metrics(ctx); err != nil {
			return began, nil, err
		}
		began = time.Now()
		return began, before, h.sim.behave(ctx, "")
	}
	return h.started, nil, nil
}

// received returns the entries that Hindsight has pushed.
func (b *bencher) received(ctx context.Context, s scenario, h *hindsight, since time.Time) (r received, err error) {
	if s.loki {
		r, err = lokiReceived(ctx, h.loki)
		r.addLags(h.lags)
	} else {
		r, err = h.sim.received(ctx, 0, 0, since)
	}
	if missing := s.all() - r.Entries; err == nil && missing > 0 {
		err = fmt.Errorf("%d of %d Events did not arrive", missing, s.all())
	}
	return r, err
}

// floorRound measures the floor with the same Events.
func (b *bencher) floorRound(ctx context.Context, s scenario, dir string) (usage, error) {
	sim, err := startSim(ctx, b.sim, dir, s)
	if err != nil {
		return usage{}, err
	}
	defer sim.Kill()
	watch := s.warmup + s.events
	if s.rate > 0 {
		watch++ // it runs until it has been measured
	}
	p, err := startProcess(b.floor, filepath.Join(dir, "floor.log"), nil, "-server", sim.url, "-watch", fmt.Sprint(watch))
	if err != nil {
		return usage{}, err
	}
	defer p.Kill()
	if s.rate > 0 {
		return b.writeSteadily(ctx, s, sim, p, func() error { return nil })
	}
	if s.events > 0 {
		if err := sim.waitForWatch(ctx, p, b.patience); err != nil {
			return usage{}, err
		}
		if err := sim.write(ctx, s.events, 0); err != nil {
			return usage{}, err
		}
	}
	return p.wait(ctx)
}
