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

// refusals keeps the first reason for which each sink refused a record for good.
// It is safe for concurrent use.
type refusals struct {
	mu     sync.Mutex // guards bySink
	bySink map[string]string
}

func (r *refusals) add(sink, reason string) {
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

func (r *refusals) first(sink string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bySink[sink]
}

// lostRecords returns an error with one line for each sink and reason for which
// records were dropped for good; nil if there are none. It reads the metrics,
// because every loss is counted there.
func lostRecords(metrics prometheus.Gatherer, c *config.Config, why *refusals) error {
	families, err := metrics.Gather()
	if err != nil {
		return fmt.Errorf("count the records that were lost: %w", err)
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
	var lost []error
	for _, name := range sinkNames(c) {
		all := sent[name]
		for _, n := range dropped[name] {
			all += n
		}
		for _, reason := range slices.Sorted(maps.Keys(dropped[name])) {
			n := dropped[name][reason]
			switch first := strings.Join(strings.Fields(why.first(name)), " "); {
			case n == 0:
			case (reason == "refused" || reason == "parked_lost") && first != "":
				lost = append(lost, fmt.Errorf("%d of %d records were refused by sink %s: %s", n, all, name, first))
			default:
				lost = append(lost, fmt.Errorf("%d of %d records were dropped for sink %s: %s", n, all, name, reason))
			}
		}
	}
	return errors.Join(lost...)
}
