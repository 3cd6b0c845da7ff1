package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// hindsight is a started Hindsight that watches a sim.
type hindsight struct {
	binary, dir string
	sim         *sim
	env         []string
	memory      bool   // the journal is in memory
	loki        string // URL to push to
	limited     bool   // with the default max_rate
	profiled    bool
	exec        []string // a command that runs it
	patience    time.Duration

	*process
	started time.Time
	address string
	lags    []float64 // each reading of the metric
}

// start starts the process.
func (h *hindsight) start(ctx context.Context) error {
	port, err := cluster.FreePort()
	if err != nil {
		return err
	}
	h.address = fmt.Sprintf("127.0.0.1:%d", port)
	journal, rate := fmt.Sprintf("dir: %q, max_bytes: 1GiB", filepath.Join(h.dir, "journal")), "max_rate: 0"
	if h.memory {
		journal = "max_bytes: 32MiB"
	}
	if h.limited {
		rate = ""
	}
	args := []string{"run", "--server", h.sim.url, "--listen", h.address}
	if h.profiled {
		args = append(args, "--pprof")
	}
	h.started = time.Now()
	p, err := program.Start(program.Options{
		Binary: h.binary, Dir: h.dir, Args: args, Env: h.env, Prefix: h.exec,
		Config: fmt.Sprintf("cluster: bench\njournal: {%s}\nsinks:\n  - name: loki\n    loki: {url: %q, %s}\n", journal, h.loki, rate),
	})
	if err != nil {
		return err
	}
	h.process = &process{Process: p.Process, log: p.LogPath}
	return nil
}

func (h *hindsight) metrics(ctx context.Context) (metrics, error) {
	m, err := scrape(ctx, "http://"+h.address+"/metrics", nil)
	if err == nil {
		h.lags = append(h.lags, m[lag])
	}
	return m, err
}

// pollEvery is how often metrics are read while waiting: each costs Hindsight
// a millisecond or two.
const pollEvery = 250 * time.Millisecond

// waitFor waits until a metric has reached a value.
func (h *hindsight) waitFor(ctx context.Context, name string, value float64) error {
	ctx, cancel := h.while(ctx, h.patience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		// It does not listen yet right after its start.
		if m, err := h.metrics(ctx); err == nil && m[name] >= value {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not reach %v: %w", name, value, context.Cause(ctx))
		}
	}
}

// waitForArrival waits until the simulated Loki has n entries. It does not read Hindsight's
// metrics meanwhile: a response costs as much CPU as a hundred Events.
func (h *hindsight) waitForArrival(ctx context.Context, entries int) error {
	waiting, cancel := h.while(ctx, h.patience)
	defer cancel()
	if _, err := h.sim.received(waiting, entries, 0, time.Time{}); err == nil || waiting.Err() == nil {
		return err
	}
	r, err := h.sim.received(ctx, 0, 0, time.Time{})
	if err != nil {
		return err
	}
	return fmt.Errorf("%d of %d Events did not arrive: %w", entries-r.Entries, entries, context.Cause(waiting))
}

// profile begins a CPU profile. The returned function waits for its end and writes it, with
// profiles of the heap and of all allocations, to files that begin with path.
func (h *hindsight) profile(ctx context.Context, path string, seconds int) (write func() error) {
	save := func(kind, query string) error {
		body, err := get(ctx, "http://"+h.address+"/debug/pprof/"+query)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer body.Close()
		data, err := io.ReadAll(body)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		return os.WriteFile(path+"."+kind, data, 0o644)
	}
	taken := make(chan error, 1)
	go func() { taken <- save("cpu", fmt.Sprintf("profile?seconds=%d", seconds)) }()
	return func() error {
		return errors.Join(<-taken, save("heap", "heap"), save("allocs", "allocs"))
	}
}
