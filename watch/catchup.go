package watch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// sinkStarts is where the sinks stand while they do not all stand at one position.
type sinkStarts struct {
	start        event.Position            // of all sinks that behind does not name
	positions    map[string]event.Position // sinks before start, by name
	aligned      bool                      // one position has been chosen from which on records are for all
	unreplayable uint64                    // no watch can begin at this version or before it
}

func (l *sinkStarts) String() string {
	var sinks []string
	for _, sink := range slices.Sorted(maps.Keys(l.positions)) {
		sinks = append(sinks, sink+" "+l.positions[sink].String())
	}
	return strings.Join(sinks, ", ")
}

// replayFrom is the version from which a watch brings what is missing at p. In
// the middle of a list it is that of the list, which has to be read as of that
// version before.
func replayFrom(p event.Position) uint64 { return max(p.Version, p.Listed) }

// newestSeen is the greatest version that any sink has seen.
func (l *sinkStarts) newestSeen(pos event.Position) uint64 {
	if len(l.positions) == 0 {
		return replayFrom(pos)
	}
	return max(replayFrom(pos), replayFrom(l.start))
}

// alignStart takes the position, which is the start, back to where the sinks can go on
// together. Those for which that is too far ahead are caught up before, one after
// the other. If nothing can be replayed from where any sink stands, that is the
// start itself, and the list is returned that is due from there.
//
// After an error the position is the start again, and sinks that were caught up
// have been.
func (w *Watcher) alignStart(ctx context.Context) (*relist, error) {
	start, _ := w.batcher.positionAndTime()
	from, found, err := w.oldestReplayable(ctx, start)
	if err != nil {
		return nil, err
	}
	common := start
	var late []string
	for _, sink := range slices.Sorted(maps.Keys(w.positions)) {
		p := w.positions[sink]
		switch {
		case p.Epoch.SameCluster(start.Epoch) && p.Compare(start) >= 0:
			// Not behind, or caught up by an earlier attempt.
		case !found || !sameEpoch(p.Epoch, start.Epoch) || replayFrom(p) < from:
			late = append(late, sink)
		case p.Compare(common) < 0:
			common = p
		}
	}
	if found {
		common.Epoch, common.Listed = start.Epoch, 0
		if common.Version < from {
			common.Listed = from
		}
	}
	for _, sink := range late {
		if err := w.catchUp(ctx, sink, common, found); err != nil {
			w.batcher.resetPosition(start)
			return nil, err
		}
	}
	w.aligned = true
	w.batcher.resetPosition(common)
	if !found {
		return w.relistFor(reasonTooOld), nil
	}
	w.log.Info("sinks go on together", "from", common)
	return nil, nil
}

// oldestReplayable returns the least version, of those from which a sink has to be
// served, from which the API server can still replay. Whether it can from the
// start is left to the watch to find out, unless a list comes before it.
func (w *Watcher) oldestReplayable(ctx context.Context, start event.Position) (version uint64, found bool, err error) {
	last := replayFrom(start)
	candidates := []uint64{last}
	for _, p := range w.positions {
		if v := replayFrom(p); v < last && sameEpoch(p.Epoch, start.Epoch) {
			candidates = append(candidates, v)
		}
	}
	slices.Sort(candidates)
	for _, v := range slices.Compact(candidates) {
		if v <= w.unreplayable {
			continue
		}
		if v == last && start.Listed == 0 {
			return v, true, nil
		}
		if ok, err := w.canReplayFrom(ctx, v); ok || err != nil {
			return v, ok, err
		}
	}
	return 0, false, nil
}

// canReplayFrom reports whether the API server still has the state as of a version,
// and so can replay from there. It cannot if it answers 410. If it cannot tell,
// that is an error: as to whether the version is one of the future, the check
// that comes before every attempt says more.
func (w *Watcher) canReplayFrom(ctx context.Context, version uint64) (bool, error) {
	_, err := w.readPage(ctx, listAsOf(w.listPage("", 1), version), func([]byte, error) error { return nil })
	switch {
	case expired(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look whether version %d can be replayed from: %w", version, err)
	}
	return true, nil
}

// catchUp takes in, for one sink alone, what a list shows between the sink's
// position and that from which it can go on with the others. If the API server
// can replay from there, the list is one as of then.
func (w *Watcher) catchUp(ctx context.Context, sink string, to event.Position, replayable bool) error {
	from := w.positions[sink]
	l := w.newListing(relist{reason: reasonSinkBehind, epoch: to.Epoch}, from)
	to.Version = max(to.Version, l.start.Version) // it may have seen more of a list that is read again
	l.sink, l.log, l.to = sink, w.log.With("sink", sink), to
	switch {
	case from.IsZero():
		l.cause = "" // nothing was promised
	case !from.Epoch.SameCluster(to.Epoch):
		l.cause = event.CauseOtherCluster
	case from.Epoch.Restores != to.Epoch.Restores:
		l.cause = event.CauseRestored
	}
	if replayable {
		l.asOf = replayFrom(to)
	}
	if err := l.run(ctx); err != nil {
		return err
	}
	w.positions[sink] = to
	return nil
}

// realign is called when no watch can begin at a position. If sinks stand further
// ahead, perhaps one can begin there: these are not to be told of a gap that they
// do not have. It reports whether join has to choose again.
func (w *Watcher) realign(pos event.Position) bool {
	if len(w.positions) == 0 || pos.Compare(w.start) >= 0 {
		return false
	}
	for sink, p := range w.positions {
		if p.Compare(pos) < 0 {
			w.positions[sink] = pos
		}
	}
	w.aligned, w.unreplayable = false, replayFrom(pos)
	w.batcher.resetPosition(w.start)
	return true
}
