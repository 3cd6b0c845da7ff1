package app

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/internal/config"
)

// rejections keeps the first reason for which each sink rejected a record. It is safe for
// concurrent use.
type rejections struct {
	mu     sync.Mutex // guards bySink
	bySink map[string]string
}

func (r *rejections) add(sink, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.bySink[sink]; known {
		return
	}
	if r.bySink == nil {
		r.bySink = make(map[string]string)
	}
	r.bySink[sink] = reason
}

func (r *rejections) first(sink string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bySink[sink]
}

// countLosses returns an error with a line for each sink and reason for which records were
// dropped; nil if none were. It reads the metrics, which count every loss.
func countLosses(metrics prometheus.Gatherer, c *config.Config, rejected *rejections) error {
	families, err := metrics.Gather()
	if err != nil {
		return fmt.Errorf("count the lost records: %w", err)
	}
	sent := make(map[string]uint64)
	dropped := make(map[string]map[string]uint64) // sink -> reason
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			n, sink := uint64(m.GetCounter().GetValue()), labels["sink"]
			switch f.GetName() {
			case "hindsight_sink_sent_total":
				sent[sink] = n
			case "hindsight_sink_dropped_total":
				if dropped[sink] == nil {
					dropped[sink] = make(map[string]uint64)
				}
				dropped[sink][labels["reason"]] = n
			}
		}
	}
	var losses []error
	for _, name := range sinkNames(c) {
		total := sent[name]
		for _, n := range dropped[name] {
			total += n
		}
		for _, reason := range slices.Sorted(maps.Keys(dropped[name])) {
			n := dropped[name][reason]
			switch first := strings.Join(strings.Fields(rejected.first(name)), " "); {
			case n == 0:
			case (reason == "rejected" || reason == "parked_lost") && first != "":
				losses = append(losses, fmt.Errorf("sink %s rejected %d of %d records: %s", name, n, total, first))
			default:
				losses = append(losses, fmt.Errorf("%d of %d records were dropped for sink %s: %s", n, total, name, reason))
			}
		}
	}
	return errors.Join(losses...)
}
