package cluster

import (
	"context"
	"fmt"
	"time"
)

// Answer returns what a single log query finds from start to before end, oldest
// first, as Loki answers: what it shows twice is there twice, while Entries
// leaves out whatever a page has in common with the one before. It is an error
// if there is more than one answer may hold (5000 entries).
func (l *Loki) Answer(ctx context.Context, query string, start, end time.Time) ([]LokiEntry, error) {
	all, err := l.page(ctx, query, start, end, lokiMaxPage)
	if err != nil {
		return nil, fmt.Errorf("query loki for %s: %w", query, err)
	}
	if len(all) >= lokiMaxPage {
		return nil, fmt.Errorf("query loki for %s: more than %d entries from %s to %s", query, lokiMaxPage-1, start, end)
	}
	return all, nil
}
