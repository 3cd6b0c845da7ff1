package query

import (
	"context"
	"fmt"
	"time"
)

// maxSeriesRange is Loki's default limit for the range of a query for streams.
const maxSeriesRange = 30 * 24 * time.Hour

// ExplainEmpty explains an empty result: which query found no Events, and whether the sink's
// streams have entries in the range.
func ExplainEmpty(ctx context.Context, source Source, s *Selection, from, to time.Time) string {
	message := fmt.Sprintf("no Events found from %s to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	l, ok := source.(*Loki)
	if !ok {
		return message
	}
	message += " by " + s.LogQL(l.Layout)
	streams := s.Streams(l.Layout)
	if to.Sub(from) > maxSeriesRange {
		from = to.Add(-maxSeriesRange)
	}
	switch found, err := l.Client.Streams(ctx, streams, from, to); {
	case err != nil:
		return message + "; cannot check for streams: " + err.Error()
	case len(found) > 0:
		return message + fmt.Sprintf("; %s has entries in this range (streams: %d), but none that match", streams, len(found))
	}
	return message + fmt.Sprintf("; Loki at %s has no entries of %s in this range: check address, tenant (%s), job and cluster",
		l.Client.URL(), streams, l.Client.Tenant())
}
