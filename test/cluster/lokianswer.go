package cluster

import (
	"context"
	"fmt"
	"time"
)

// Answer returns the result of a single log query from start to before end, oldest first,
// including duplicates, which Entries removes where pages overlap. More than 5000 entries, the
// limit of Loki, are an error.
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
