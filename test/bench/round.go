package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// pair measures the floor, then Hindsight, then the peer if there is one.
func (b *bencher) pair(ctx context.Context, s scenario) (rows []figures, err error) {
	b.rounds++
	dir := filepath.Join(b.dir, fmt.Sprintf("%03d-%s", b.rounds, s.name))
	if !b.keep {
		defer func() {
			if err == nil {
				err = os.RemoveAll(dir)
			}
		}()
	}
	in := func(name string) (string, error) {
		path := filepath.Join(dir, name)
		return path, os.MkdirAll(path, 0o755)
	}
	floorDir, err := in("floor")
	if err != nil {
		return nil, err
	}
	var floor figures
	switch {
	case s.standby > 0: // it does nothing that could be compared
	case s.sinks > 1:
		one := s
		one.sinks = 1
		floor, err = b.run(ctx, one, floorDir, nil)
	case s.loki && s.rate > 0:
		floor.Used, err = b.idleLoki(ctx, s, floorDir)
	default:
		floor.Used, err = b.floorRound(ctx, s, floorDir)
	}
	if err != nil {
		return nil, err
	}
	commands := [][]string{nil}
	if b.peer != nil && s.rate > 0 && s.sinks == 0 {
		commands = append(commands, b.peer)
	}
	for i, command := range commands {
		dir, err := in([]string{"hindsight", "peer"}[i])
		if err != nil {
			return nil, err
		}
		f, err := b.run(ctx, s, dir, command)
		if err != nil {
			return nil, err
		}
		f.Scenario, f.Note, f.Floor = s.name, s.note, floor.Used
		f.Ratio.Median = quotient(f.Used.cpu.Seconds(), f.Floor.cpu.Seconds())
		if command != nil {
			f.Scenario += " (peer)"
			rows[0].PeerRatio.Median = quotient(rows[0].Used.cpu.Seconds(), f.Used.cpu.Seconds())
		}
		if s.sinks > 1 {
			f.SinkBytes.Median = float64(f.Used.anonBytes-floor.Used.anonBytes) / float64(s.sinks-1)
			f.Series = (f.Series - floor.Series) / (s.sinks - 1)
		}
		rows = append(rows, f)
	}
	return rows, nil
}

// run measures Hindsight, or the peer with this command.
func (b *bencher) run(ctx context.Context, s scenario, dir string, peer []string) (f figures, err error) {
	sim, err := startSim(ctx, b.sim, dir, s)
	if err != nil {
		return f, err
	}
	defer sim.Kill()
	h := &hindsight{
		binary: b.hindsight, dir: dir, sim: sim, env: b.env, exec: b.exec, patience: b.patience,
		memory: s.memory, sinks: s.sinks, push: sim.url, profiled: b.profiles != "", peer: peer,
	}
	if s.loki {
		if h.loki, err = cluster.StartLoki(ctx, cluster.LokiOptions{Dir: filepath.Join(dir, "loki")}); err != nil {
			return f, err
		}
		defer h.loki.Kill()
		h.push = h.loki.URL()
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
	if h.profiled && peer == nil {
		if err := h.waitFor(ctx, cpu, 0); err != nil { // it answers
			return f, err
		}
		writeProfiles = h.profile(ctx, filepath.Join(b.profiles, s.name), b.profileSeconds)
	}

	measure := b.bulk
	switch {
	case s.standby > 0:
		measure = b.standby
	case s.rate > 0:
		measure = b.steady
	}
	if f, err = measure(ctx, s, h); err != nil {
		return f, err
	}
	if f.Series, err = h.series(ctx); err != nil {
		return f, err
	}
	if err := writeProfiles(); err != nil {
		return f, err
	}
	used, err := h.stop(ctx)
	if err != nil {
		return f, err
	}
	if f.Used.peakBytes == 0 { // not measured yet
		used.cpu = cmp.Or(f.Used.cpu, used.cpu)
		f.Used = used
		f.Used.switches = 0
	}
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
	if !s.loki { // else, it reads lags meanwhile
		if err := h.waitForArrival(ctx, s.all()); err != nil {
			return f, err
		}
	}
	if err := h.waitFor(ctx, sent, float64(s.all()*max(s.sinks, 1))); err != nil {
		return f, err
	}
	ended := time.Now()
	after, err := h.metrics(ctx)
	if err != nil {
		return f, err
	}
	if f.Received, err = h.received(ctx, began); err != nil {
		return f, err
	}
	if f.Lease, err = h.sim.leaseWrites(ctx); err != nil {
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

// steady measures while Events are written at a rate. The records that wait at the end count
// instead of those that waited at the start. With a real Loki, it measures that.
func (b *bencher) steady(ctx context.Context, s scenario, h *hindsight) (f figures, err error) {
	type state struct {
		metrics  metrics
		received received
		lease    count
		own      usage
	}
	var states []state
	look := func() (err error) {
		var at state
		if at.metrics, err = h.metrics(ctx); err != nil {
			return err
		}
		if at.received, err = h.received(ctx, time.Time{}); err != nil {
			return err
		}
		if at.lease, err = h.sim.leaseWrites(ctx); err != nil {
			return err
		}
		at.own, err = usageSoFar(h.PID())
		states = append(states, at)
		return err
	}
	pid := h.PID()
	if s.loki {
		pid = h.loki.PID()
	}
	if f.Used, err = b.writeSteadily(ctx, s, h.sim, h.process, pid, look); err != nil {
		return f, err
	}
	if err := h.waitForArrival(ctx, s.all()); err != nil {
		return f, err
	}
	h.lags = nil // of a few moments
	if f.Received, err = h.received(ctx, time.Time{}); err != nil {
		return f, err
	}
	before, after := states[0], states[1]
	f.Received.Entries = after.received.Entries - before.received.Entries
	f.Received.Pushes = after.received.Pushes - before.received.Pushes
	f.Received.Bytes = after.received.Bytes - before.received.Bytes
	f.Received.CountedBytes = after.received.CountedBytes - before.received.CountedBytes
	f.Lease = after.lease.since(before.lease)
	f.Events, f.Seconds = s.events, float64(s.events)/float64(s.rate)
	f.Allocations = (after.metrics[allocations] - before.metrics[allocations]) / float64(s.events)
	f.Retries = after.metrics[retries] - before.metrics[retries]
	if s.loki {
		f.SenderCPU = after.own.since(before.own).cpu.Seconds()
	}
	return f, nil
}

// writeSteadily writes Events at a rate while p watches, and returns what the process pid has used
// meanwhile, without the first ones. It calls look before and after the measured period.
func (b *bencher) writeSteadily(ctx context.Context, s scenario, sim *sim, p *process, pid int, look func() error) (used usage, err error) {
	if err := sim.waitForWatch(ctx, p, b.patience); err != nil {
		return used, err
	}
	if err := sim.write(ctx, s.warmup, s.rate); err != nil {
		return used, err
	}
	if err := look(); err != nil {
		return used, err
	}
	if used, err = during(pid, func() error { return sim.write(ctx, s.events, s.rate) }); err != nil {
		return used, err
	}
	return used, look()
}

// idleLoki measures a Loki without pushes for as long as Events are written.
func (b *bencher) idleLoki(ctx context.Context, s scenario, dir string) (used usage, err error) {
	l, err := cluster.StartLoki(ctx, cluster.LokiOptions{Dir: filepath.Join(dir, "loki")})
	if err != nil {
		return used, err
	}
	defer l.Kill()
	period := func(states int) time.Duration {
		return time.Duration(states) * time.Second / time.Duration(s.rate)
	}
	if err := sleep(ctx, period(s.warmup)); err != nil {
		return used, err
	}
	return during(l.PID(), func() error { return sleep(ctx, period(s.events)) })
}

// standby measures a second Hindsight that waits for the Lease of h.
func (b *bencher) standby(ctx context.Context, s scenario, h *hindsight) (f figures, err error) {
	if err := h.sim.waitForWatch(ctx, h.process, b.patience); err != nil { // it leads
		return f, err
	}
	second := *h
	second.dir, second.client = filepath.Join(h.dir, "standby"), "/as/standby"
	if err := os.Mkdir(second.dir, 0o755); err != nil {
		return f, err
	}
	if err := second.start(ctx); err != nil {
		return f, err
	}
	defer second.Kill()
	// Until it has read the Lease twice, it starts.
	reads := func() (n int, all map[string]count, err error) {
		all, err = h.sim.requests(ctx, second.client)
		for _, c := range all {
			n += c.Requests
		}
		return n, all, err
	}
	for n := 0; n < 2; {
		if n, _, err = reads(); err != nil {
			return f, err
		}
		select {
		case <-second.Done():
			return f, errors.Join(second.Exit(), fmt.Errorf("the standby has ended; see %s", second.log))
		case <-time.After(pollEvery):
		}
	}
	_, before, err := reads()
	if err != nil {
		return f, err
	}
	written, err := h.sim.leaseWrites(ctx)
	if err != nil {
		return f, err
	}
	if f.Used, err = during(second.PID(), func() error { return sleep(ctx, s.standby) }); err != nil {
		return f, err
	}
	after, err := h.sim.leaseWrites(ctx)
	if err != nil {
		return f, err
	}
	f.Seconds, f.Lease = s.standby.Seconds(), after.since(written)
	if _, f.Requests, err = reads(); err != nil {
		return f, err
	}
	for key, c := range before {
		f.Requests[key] = f.Requests[key].since(c)
	}
	maps.DeleteFunc(f.Requests, func(_ string, c count) bool { return c.Requests == 0 })
	_, err = second.stop(ctx)
	return f, err
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
		return b.writeSteadily(ctx, s, sim, p, p.PID(), func() error { return nil })
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

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
