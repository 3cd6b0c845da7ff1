package delivery

import (
	"fmt"
	"slices"

	"github.com/hindsight-events/hindsight/sink"
)

// refused counts the records of a batch that the destination will never accept.
func (l *loop) refused(b *pending, why *sink.Error) {
	l.metrics.refused.Add(float64(len(why.Rejected)))
	l.Logger.Error("records were refused for good and are dropped", "stream", b.stream.name, "records", len(why.Rejected), "first", why.Rejected[0].Reason)
	if l.OnRejected != nil {
		l.OnRejected(why.Rejected[0].Reason)
	}
	for _, r := range why.Rejected {
		if slices.Contains(b.gaps, r.Index) {
			l.gapRefused(b.stream.name, r.Reason)
		}
	}
}

// gapRefused records that the destination refused a gap record.
func (l *loop) gapRefused(stream, reason string) {
	l.gapErr = fmt.Errorf("a gap record was refused for good and is missing from stream %s: %s", stream, reason)
}
