package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// hindsight is a Hindsight that watches a sim.
type hindsight struct {
	binary, dir string
	sim         *sim
	env         []string
	memory      bool   // the journal is in memory
	loki        string // where to
	limited     bool   // max_rate is as it is by default
	profiled    bool

	*process
	started time.Time
	address string
}

// start returns as soon as the process runs.
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
	config := filepath.Join(h.dir, "hindsight.yaml")
	err = os.WriteFile(config, fmt.Appendf(nil, `cluster: bench
journal: {%s}
sinks:
  - name: loki
    loki: {url: %q, %s}
`, journal, h.loki, rate), 0o644)
	if err != nil {
		return err
	}
	args := []string{"run", "--server", h.sim.url, "--config", config, "--listen", h.address}
	if h.profiled {
		args = append(args, "--pprof")
	}
	h.started = time.Now()
	h.process, err = startProcess(h.binary, filepath.Join(h.dir, "hindsight.log"), h.env, args...)
	return err
}

// metrics are those of a Hindsight, by name; of several with other labels, the
// sum.
type metrics map[string]float64

const (
	cpu         = "process_cpu_seconds_total"
	allocations = "go_memstats_mallocs_total"
	behind      = "hindsight_sink_behind_records"
	sent        = "hindsight_sink_sent_total"
	retries     = "hindsight_sink_retries_total"
)

func (h *hindsight) metrics(ctx context.Context) (metrics, error) {
	body, err := get(ctx, "http://"+h.address+"/metrics")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of hindsight: %w", err)
	}
	m := make(metrics)
	for name, family := range families {
		for _, one := range family.Metric {
			m[name] += one.GetCounter().GetValue() + one.GetGauge().GetValue()
		}
	}
	return m, nil
}

// pollEvery is how often metrics are read while waiting: each costs Hindsight
// a millisecond or two.
const pollEvery = 250 * time.Millisecond

// waitFor returns once a metric has reached a value.
func (h *hindsight) waitFor(ctx context.Context, name string, value float64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		// It does not answer at once after its start.
		if m, err := h.metrics(ctx); err == nil && m[name] >= value {
			return nil
		}
		select {
		case <-tick.C:
		case <-h.done:
			return fmt.Errorf("hindsight has ended: %v; see %s", h.err, h.log)
		case <-ctx.Done():
			return fmt.Errorf("%s did not reach %v: %w; see %s", name, value, ctx.Err(), h.log)
		}
	}
}

// profileSeconds is for how long CPU is profiled.
const profileSeconds = 5

// profile begins a CPU profile. What it returns waits for its end and writes it,
// with profiles of the heap and of all allocations, to files that begin with
// path.
func (h *hindsight) profile(ctx context.Context, path string) (write func() error) {
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
	go func() { taken <- save("cpu", fmt.Sprintf("profile?seconds=%d", profileSeconds)) }()
	return func() error {
		return errors.Join(<-taken, save("heap", "heap"), save("allocs", "allocs"))
	}
}

// get returns the body of an answer that is 200.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	return do(ctx, http.MethodGet, url)
}

func do(ctx context.Context, method, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s answers %s: %s", url, resp.Status, said)
	}
	return resp.Body, nil
}
