package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// round is one round of a scenario: first the floor, then Hindsight.
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
	if err := writeProfiles(); err != nil {
		return f, err
	}
	used, err := h.stop(ctx)
	if err != nil {
		return f, err
	}

	if !f.Received.First.IsZero() {
		f.First = f.Received.First.Sub(began).Seconds()
		ended = f.Received.Last
		if s.held {
			began = f.Received.First
		}
	}
	f.Seconds = ended.Sub(began).Seconds()
	f.CPU = used.cpu.Seconds()
	if before != nil {
		f.CPU = after[cpu] - before[cpu]
	}
	f.PeakBytes = used.peakBytes
	f.Allocations = (after[allocations] - before[allocations]) / float64(s.all())
	f.Retries = after[retries] - before[retries]
	f.Note = s.note
	if s.container {
		return f, granted.holds(f.PeakBytes)
	}
	return f, nil
}

// work starts the load beyond the backlog, and returns its start. before holds the metrics at
// that time if only the following period is measured.
func (b *bencher) work(ctx context.Context, s scenario, h *hindsight) (began time.Time, before metrics, err error) {
	if s.events > 0 {
		if err := h.sim.waitForWatch(ctx, h.process, b.patience); err != nil {
			return began, nil, err
		}
		if s.rate > 0 {
			if before, err = h.metrics(ctx); err != nil {
				return began, nil, err
			}
		}
		began = time.Now()
		return began, before, h.sim.write(ctx, s.events, s.rate)
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

// floorRound measures the floor with the same Events; for Events that are written at a rate,
// only the watch.
func (b *bencher) floorRound(ctx context.Context, s scenario, dir string) (usage, error) {
	sim, err := startSim(ctx, b.sim, dir, s)
	if err != nil {
		return usage{}, err
	}
	defer sim.Kill()
	log := filepath.Join(dir, "floor.log")
	p, err := startProcess(b.floor, log, nil, "-server", sim.url, "-watch", fmt.Sprint(s.events))
	if err != nil {
		return usage{}, err
	}
	defer p.Kill()
	if s.events > 0 {
		if err := sim.waitForWatch(ctx, p, b.patience); err != nil {
			return usage{}, err
		}
		if err := sim.write(ctx, s.events, s.rate); err != nil {
			return usage{}, err
		}
	}
	used, err := p.wait(ctx)
	if err != nil || s.rate == 0 {
		return used, err
	}
	output, err := os.ReadFile(log)
	if err != nil {
		return used, err
	}
	before, err := strconv.ParseFloat(strings.TrimSpace(string(output)), 64)
	if err != nil {
		return used, fmt.Errorf("read the CPU time of the floor: %w", err)
	}
	used.cpu -= time.Duration(before * float64(time.Second))
	return used, nil
}
