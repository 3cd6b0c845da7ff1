package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// PromtailOptions of a Promtail.
type PromtailOptions struct {
	// Dir holds its configuration, positions and log. It is created if need be,
	// and left in place.
	Dir string
	// LokiURL is where it pushes to, without a path.
	LokiURL string
	// Path is the file that it reads, or a pattern of files.
	Path string
	// Labels are the labels of all lines.
	Labels map[string]string
	// Stages are its pipeline, as in its configuration.
	Stages []any
}

// Promtail is a real Promtail that follows files.
type Promtail struct{ process *component }

// StartPromtail starts the Promtail that FindPromtail finds, and returns when it
// is ready. ctx bounds the start, not Promtail's life: that ends with Stop, or
// with this process.
func StartPromtail(ctx context.Context, o PromtailOptions) (*Promtail, error) {
	p, err := newPromtail(ctx, o)
	if err == nil {
		err = p.process.start(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start a Promtail: %w", err)
	}
	return p, nil
}

func newPromtail(ctx context.Context, o PromtailOptions) (*Promtail, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	found, err := FindPromtail(ctx)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	labels := map[string]string{"__path__": o.Path}
	for name, value := range o.Labels {
		labels[name] = value
	}
	config, err := yaml.Marshal(map[string]any{
		"server": map[string]any{
			"http_listen_address": "127.0.0.1", "http_listen_port": port,
			"grpc_listen_address": "127.0.0.1", "grpc_listen_port": 0,
			"log_level": "warn",
		},
		"positions": map[string]any{"filename": filepath.Join(dir, "positions.yaml")},
		"clients":   []any{map[string]any{"url": o.LokiURL + "/loki/api/v1/push", "batchwait": "100ms"}},
		"scrape_configs": []any{map[string]any{
			"job_name":        "test",
			"pipeline_stages": o.Stages,
			"static_configs":  []any{map[string]any{"targets": []string{"localhost"}, "labels": labels}},
		}},
	})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "promtail.yaml")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return nil, err
	}
	ready := fmt.Sprintf("http://127.0.0.1:%d/ready", port)
	return &Promtail{process: &component{
		name:    "promtail",
		binary:  found.Path,
		logPath: filepath.Join(dir, "promtail.log"),
		args:    []string{"-config.file", file},
		ready:   func(ctx context.Context) error { return isReady(ctx, ready) },
	}}, nil
}

func isReady(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := storeHTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// Stop kills Promtail and waits until it has ended. It may be called again.
func (p *Promtail) Stop() { p.process.kill() }
