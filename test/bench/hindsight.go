package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// hindsight is a started Hindsight, or its peer, that watches a sim.
type hindsight struct {
	binary, dir string
	sim         *sim
	client      string // prefix of the paths of its requests to the API server, see ../sim; may be empty
	env         []string
	memory      bool          // the journal is in memory
	sinks       int           // 0: one
	push        string        // URL to push to
	loki        *cluster.Loki // nil: the sim. With it, max_rate is the default
	profiled    bool
	exec        []string // a command that runs it
	peer        []string // the command of another program to run instead
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
	if h.peer != nil {
		return h.startPeer()
	}
	journal, rate := fmt.Sprintf("dir: %q, max_bytes: 1GiB", filepath.Join(h.dir, "journal")), "max_rate: 0"
	if h.memory {
		journal = "max_bytes: 32MiB"
	}
	if h.loki != nil {
		rate = ""
	}
	config := fmt.Sprintf("cluster: bench\nleader_election: {enabled: true, namespace: bench}\njournal: {%s}\nsinks:\n", journal)
	for i := range max(h.sinks, 1) {
		config += fmt.Sprintf("  - name: loki-%d\n    loki: {url: %q, %s}\n", i, h.push, rate)
	}
	args := []string{"run", "--server", h.sim.url + h.client, "--listen", h.address}
	if h.profiled {
		args = append(args, "--pprof")
	}
	h.started = time.Now()
	p, err := program.Start(program.Options{Binary: h.binary, Dir: h.dir, Args: args, Env: h.env, Prefix: h.exec, Config: config})
	if err != nil {
		return err
	}
	h.process = &process{Process: p.Process, log: p.LogPath}
	return nil
}

// startPeer starts the other program. It finds the addresses in its environment, and in the
// arguments of its command.
func (h *hindsight) startPeer() (err error) {
	names := map[string]string{"BENCH_SERVER": h.sim.url, "BENCH_LOKI": h.push, "BENCH_LISTEN": h.address, "BENCH_DIR": h.dir}
	var env, command []string
	for name, value := range names {
		env = append(env, name+"="+value)
	}
	for _, arg := range h.peer {
		command = append(command, os.Expand(arg, func(name string) string { return names[name] }))
	}
	h.process, err = startProcess(command[0], filepath.Join(h.dir, "peer.log"), env, command[1:]...)
	return err
}

// stop ends the process. The peer need not end well.
func (h *hindsight) stop(ctx context.Context) (usage, error) {
	if h.peer == nil {
		return h.process.stop(ctx)
	}
	defer h.Kill()
	return usageSoFar(h.PID())
}

// metrics reads the metrics; of the peer, none are known.
func (h *hindsight) metrics(ctx context.Context) (metrics, error) {
	if h.peer != nil {
		return nil, nil
	}
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

// waitForArrival waits until Loki has n entries. It does not read Hindsight's metrics meanwhile: a
// response costs as much CPU as a hundred Events.
func (h *hindsight) waitForArrival(ctx context.Context, entries int) error {
	waiting, cancel := h.while(ctx, h.patience)
	defer cancel()
	if h.loki != nil {
		for {
			r, err := h.received(ctx, time.Time{})
			if err != nil || r.Entries >= entries {
				return err
			}
			if sleep(waiting, pollEvery) != nil {
				break
			}
		}
	} else if _, err := h.sim.received(waiting, entries, 0, time.Time{}); err == nil || waiting.Err() == nil {
		return err
	}
	r, err := h.received(ctx, time.Time{})
	if err != nil {
		return err
	}
	return fmt.Errorf("%d of %d Events did not arrive: %w", entries-r.Entries, entries, context.Cause(waiting))
}

// received returns the entries that Loki has. The lags of the initial Events count from since; they
// are excluded if it is zero.
func (h *hindsight) received(ctx context.Context, since time.Time) (r received, err error) {
	if h.loki == nil {
		return h.sim.received(ctx, 0, 0, since)
	}
	r, err = lokiReceived(ctx, h.push)
	r.addLags(h.lags)
	return r, err
}

// series returns how many lines of metrics there are.
func (h *hindsight) series(ctx context.Context) (n int, err error) {
	if h.peer != nil {
		return 0, nil
	}
	body, err := get(ctx, "http://"+h.address+"/metrics")
	if err != nil {
		return 0, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "#") {
			n++
		}
	}
	return n, lines.Err()
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
