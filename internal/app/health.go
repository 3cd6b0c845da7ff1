package app

import (
	"fmt"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

const (
	// deadAfter is the age of a watch loop's last heartbeat after which a restart is due. The loop
	// also beats while it waits: only a defect of the program stops it.
	deadAfter = 10 * time.Minute
	// blockedAfter is how long the journal may be blocked before the process is unready. During a
	// long list it is full for short times.
	blockedAfter = 15 * time.Second
)

// live returns the watches with a hanging loop.
func (p *process) live() (problems []string) {
	g := p.current.Load()
	if g == nil {
		return nil
	}
	for namespace, w := range g.watchers {
		if age := time.Since(w.LastHeartbeat()); age > deadAfter {
			problems = append(problems, fmt.Sprintf("%s: no heartbeat for %s", watchName(namespace), age.Round(time.Second)))
		}
	}
	return problems
}

// ready returns the problems that keep Events from being delivered. A candidate is ready.
func (p *process) ready() (problems []string) {
	if p.lease != nil {
		if err := p.lease.Ready(); err != nil {
			problems = append(problems, fmt.Sprintf("lease: %v", err))
		}
	}
	g := p.current.Load()
	if g == nil {
		return problems
	}
	for namespace, w := range g.watchers {
		if err := w.Ready(); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", watchName(namespace), err))
		}
	}
	if e := p.enrichment.Load(); e != nil {
		if err := e.Problem(); err != nil {
			for problem := range strings.SplitSeq(err.Error(), "\n") { // one for each resource
				problems = append(problems, "enrich: "+problem)
			}
		}
	}
	for _, d := range g.pipeline.deliveries {
		if err := d.Ready(); err != nil {
			problems = append(problems, fmt.Sprintf("sink %s: %v", d.Name, err))
		}
	}
	if j := p.shared.journal.Stats(); !j.BlockedSince.IsZero() && time.Since(j.BlockedSince) > blockedAfter {
		problems = append(problems, fmt.Sprintf("journal: blocked since %s: %s", j.BlockedSince.UTC().Format(time.RFC3339), j.BlockedReason))
	}
	return problems
}

// gather returns the metrics of the current generation.
func (p *process) gather() ([]*dto.MetricFamily, error) {
	g := p.current.Load()
	if g == nil {
		return nil, nil
	}
	return g.metrics.Gather()
}

func watchName(namespace string) string {
	if namespace == "" {
		return "watch of all namespaces"
	}
	return "watch of namespace " + namespace
}
