package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

const stopTimeout = 30 * time.Second

// exporter is a running hindsight.
type exporter struct {
	process *cluster.Process
	url     string // of its metrics and probes
}

func buildHindsight(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "hindsight")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/hindsight-events/hindsight/cmd/hindsight").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build hindsight: %w\n%s", err, out)
	}
	return binary, nil
}

// startHindsight returns when it is ready.
func startHindsight(ctx context.Context, binary, dir, kubeconfig, sink string) (*exporter, error) {
	port, err := cluster.FreePort()
	if err != nil {
		return nil, fmt.Errorf("start hindsight: %w", err)
	}
	config := filepath.Join(dir, "hindsight.yaml")
	err = os.WriteFile(config, fmt.Appendf(nil, `listen: "127.0.0.1:%d"
cluster: demo
journal: {dir: %q}
sinks:
  - name: archive
    %s
`, port, filepath.Join(dir, "journal"), sink), 0o644)
	if err != nil {
		return nil, fmt.Errorf("start hindsight: %w", err)
	}
	process, err := cluster.StartProcess("hindsight", filepath.Join(dir, "hindsight.log"),
		binary, "run", "--kubeconfig", kubeconfig, "--config", config)
	if err != nil {
		return nil, err
	}
	e := &exporter{process: process, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	err = process.WaitReady(ctx, func(ctx context.Context) error {
		_, err := e.get(ctx, "/readyz")
		return err
	})
	if err != nil {
		process.Kill()
		return nil, fmt.Errorf("start %w", err)
	}
	return e, nil
}

var behindMetric = regexp.MustCompile(`(?m)^hindsight_sink_behind_records\{sink="archive"\} (\d+)$`)

// behind is how many records it has yet to deliver.
func (e *exporter) behind(ctx context.Context) (int, error) {
	metrics, err := e.get(ctx, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("read the metrics of hindsight: %w", err)
	}
	match := behindMetric.FindSubmatch(metrics)
	if match == nil {
		return 0, fmt.Errorf("read the metrics of hindsight: none is like %s", behindMetric)
	}
	return strconv.Atoi(string(match[1]))
}

func (e *exporter) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %s", path, resp.Status, body)
	}
	return body, nil
}

func (e *exporter) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-e.process.Done():
		return nil // it is missed where it is asked
	default:
		return e.process.Terminate(ctx)
	}
}
