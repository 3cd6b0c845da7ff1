package canary

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// queryInterval is how often Loki is queried while a state is pending: the resolution of the
// metric.
const queryInterval = 2 * time.Second

// Loki is the Loki in which the Event must be found.
type Loki struct {
	Client interface {
		// Has reports whether a log query finds an entry between two times.
		Has(ctx context.Context, query string, from, to time.Time) (bool, error)
	}

	// Query returns the stream selector of a record, {…}, followed, if the sink does not store the
	// version as structured metadata, by a parser that makes it a label: {…} | logfmt.
	Query func(*event.Record) string
}

// queryLoki looks for pending states.
func (c *Canary) queryLoki(ctx context.Context) {
	for _, s := range c.loki.candidates() {
		// The time of an entry is that of its record.
		found, err := c.o.Loki.Client.Has(ctx, s.query, s.time.Add(-time.Second), s.time.Add(time.Second))
		if ctx.Err() != nil {
			return
		}
		c.loki.queried(err)
		if err != nil {
			return
		}
		if found {
			c.loki.found(s.version)
			return
		}
	}
}
