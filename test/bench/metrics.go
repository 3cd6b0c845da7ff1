package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metrics maps the names of a program's metrics to values, summed over labels. A histogram
// has two: …_count and …_sum.
type metrics map[string]float64

// Metrics of Hindsight.
const (
	cpu         = "process_cpu_seconds_total"
	allocations = "go_memstats_mallocs_total"
	behind      = "hindsight_sink_behind_records"
	lag         = "hindsight_sink_lag_seconds"
	sent        = "hindsight_sink_sent_total"
	retries     = "hindsight_sink_retries_total"
)

// scrape reads metrics; only those that match, unless match is nil.
func scrape(ctx context.Context, url string, match func([]*dto.LabelPair) bool) (metrics, error) {
	body, err := get(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	m := make(metrics)
	for name, family := range families {
		for _, one := range family.Metric {
			if match != nil && !match(one.Label) {
				continue
			}
			if h := one.Histogram; h != nil {
				m[name+"_count"] += float64(h.GetSampleCount())
				m[name+"_sum"] += h.GetSampleSum()
				continue
			}
			m[name] += one.GetCounter().GetValue() + one.GetGauge().GetValue()
		}
	}
	return m, nil
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
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s answers %s: %s", url, resp.Status, body)
	}
	return resp.Body, nil
}
