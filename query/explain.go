package query

import (
	"context"
	"fmt"
	"time"
)

// ExplainEmpty explains to a person that nothing was found: what was searched,
// and whether there would have been something to find.
func ExplainEmpty(ctx context.Context, source Source, s *Selection, from, to time.Time) string {
	message := fmt.Sprintf("no Events found from %s to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	l, ok := source.(*Loki)
	if !ok {
		return message
	}
	message += " by " + s.LogQL(l.Layout)
	streams := s.Streams(l.Layout)
	if to.Sub(from) > longestSeries {
		from = to.Add(-longestSeries)
	}
	switch found, err := l.Client.Streams(ctx, streams, from, to); {
	case err != nil:
		return message + "; whether there is anything in Loki could not be found out: " + err.Error()
	case len(found) > 0:
		return message + fmt.Sprintf("; of %s there are %d streams in that time: nothing in them is what was asked for", streams, len(found))
	}
	return message + fmt.Sprintf("; Loki at %s has nothing at all of %s in that time: is it the right Loki, tenant (%s), job and cluster?",
		l.Client.URL(), streams, l.Client.Tenant())
}

// longestSeries is how far back Loki is asked for streams: no further than it
// allows by default.
const longestSeries = 30 * 24 * time.Hour
