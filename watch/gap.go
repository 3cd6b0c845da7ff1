package watch

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// declareGap emits the gap record of a list, if the list leaves a gap.
func (l *listing) declareGap(ctx context.Context) error {
	if l.cause == "" || l.openGap != nil {
		return nil
	}
	if l.reason == reasonClosedAtOnce && l.kept == 0 {
		// The list shows nothing new: some proxies close silent watches.
		return nil
	}
	w := l.w
	to := event.Position{Epoch: l.to.Epoch, Version: watchVersion(l.to), Time: l.to.Time}
	if l.newestWrite != 0 {
		to.Time = event.ClampTime(time.Unix(l.newestWrite, 0), w.clock.now())
	}
	gap := event.Gap{
		Source: w.namespace, Namespace: w.ownNamespace, Sink: l.sink,
		From: l.from, To: to, Cause: l.cause, MissedAtLeast: l.missed,
	}
	if l.reason == reasonStalled {
		// The gap stays open until the stall ends.
		gap.To = event.Position{Time: gap.To.Time}
		w.openGap = &gap
	}
	w.useKnownGap(&gap)
	w.metrics.gaps[l.cause].Inc()
	l.log.Warn("events may have been missed", "cause", gap.Cause, "from", gap.From, "to", gap.To, "missed_at_least", gap.MissedAtLeast)
	w.rememberGap(gap)
	rec := event.NewGap(gap)
	rec.Position = event.Position{} // the batcher sets it: the beginning of the list
	return w.batcher.addWaiting(ctx, rec, nil, rec.Event.Size(), w.health.heartbeat)
}

// closeOpenGap emits the record of the open gap again, with its end: the position.
func (w *Watcher) closeOpenGap(ctx context.Context) error {
	if w.openGap == nil {
		return nil
	}
	gap := *w.openGap
	gap.To = w.batcher.at()
	rec := event.NewGap(gap)
	rec.Position = event.Position{}
	if err := w.batcher.add(ctx, rec, nil, rec.Event.Size(), closeWhenBlockedFor); err != nil {
		return err
	}
	w.openGap = nil
	w.log.Warn("events may have been missed", "cause", gap.Cause, "from", gap.From, "to", gap.To)
	w.rememberGap(gap)
	return nil
}

// useKnownGap replaces g by a known gap of the same range, which another replica may have
// declared, or this one for another sink. The details that a list shows of a gap change with
// time, and are fewer if part of the list was emitted before.
func (w *Watcher) useKnownGap(g *event.Gap) {
	for _, known := range w.knownGaps {
		if known.Source == g.Source && known.From.String() == g.From.String() && known.To.String() == g.To.String() {
			known.Sink = g.Sink
			*g = known
			return
		}
	}
}

// rememberGap adds a gap to the known ones, replacing the same gap without an end, and calls
// onGap.
func (w *Watcher) rememberGap(g event.Gap) {
	w.knownGaps.Add(g)
	if w.onGap != nil {
		w.onGap(g)
	}
}
