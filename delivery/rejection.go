package delivery

import (
	"fmt"
	"slices"

	"github.com/hindsight-events/hindsight/sink"
)

// countRejected counts and logs the records of a batch that the destination will never
// accept. They are acknowledged like accepted ones; the sink has stored them as dead
// letters, if it stores any.
func (l *loop) countRejected(b *batch, rejected []sink.Rejection) {
	first := rejected[0].Reason
	l.metrics.countDropped(droppedRejected, len(rejected))
	l.Logger.Error("records rejected and dropped", "stream", b.stream.name, "records", len(rejected), "first_reason", first)
	if l.OnRejected != nil {
		l.OnRejected(first)
	}
	for _, r := range rejected {
		if slices.Contains(b.gaps, r.Index) {
			l.gapErr = fmt.Errorf("a gap record was rejected and is missing from stream %s: %s", b.stream.name, r.Reason)
		}
	}
}
