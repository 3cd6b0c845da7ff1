package main

import (
	"context"
	"fmt"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// lokiReceived returns the entries that a real Loki has received, from its metrics. The
// lags come from Hindsight's metrics.
func lokiReceived(ctx context.Context, url string) (received, error) {
	m, err := scrape(ctx, url+"/metrics", func(labels []*dto.LabelPair) bool {
		return !slices.ContainsFunc(labels, func(l *dto.LabelPair) bool {
			return l.GetName() == "route" && l.GetValue() != "loki_api_v1_push"
		})
	})
	if err != nil {
		return received{}, fmt.Errorf("read the metrics of Loki: %w", err)
	}
	return received{
		Entries: int(m["loki_distributor_lines_received_total"] - m["loki_discarded_samples_total"]),
		Pushes:  int(m["loki_request_message_bytes_count"]),
		Bytes:   int(m["loki_request_message_bytes_sum"]),
	}, nil
}

// addLags adds the readings of the lag metric: the age of the oldest record behind.
func (r *received) addLags(lags []float64) {
	if len(lags) == 0 {
		return
	}
	lags = slices.Sorted(slices.Values(lags))
	n := len(lags)
	r.LagMedian, r.LagNinetyNine, r.LagMax = lags[n/2], lags[n*99/100], lags[n-1]
}
