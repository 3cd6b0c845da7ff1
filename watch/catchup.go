package watch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// sinkStarts are the positions of the sinks while they differ.
type sinkStarts struct {
	start        event.Position            // of all sinks without an entry in positions
	positions    map[string]event.Position // of sinks behind start, by name
	aligned      bool                      // a common start was chosen
	unreplayable uint64                    // no watch can begin at this version or below
}

func (s *sinkStarts) String() string {
	var sinks []string
	for _, sink := range slices.Sorted(maps.Keys(s.positions)) {
		sinks = append(sinks, sink+" "+s.positions[sink].String())
	}
	return strings.Join(sinks, ", ")
}

// relistOrRealign is called when no watch can begin at the position. It returns the list that is
// due in the current epoch, or nil if the loop shall try the position of sinks further ahead.
func (w *Watcher) relistOrRealign(r relistReason) *relist {
	w.failedWatches = 0
	pos := w.batcher.at()
	if w.realign(pos) {
		return nil
	}
	return &relist{reason: r, epoch: pos.Epoch}
}

// realign makes alignStart choose again, if there are sinks ahead of pos: perhaps a watch can
// begin at their position, and they need no gap. It reports whether there are.
func (w *Watcher) realign(pos event.Position) bool {
	if len(w.positions) == 0 || pos.Compare(w.start) >= 0 {
		return false
	}
	for sink, p := range w.positions {
		if p.Compare(pos) < 0 {
			w.positions[sink] = pos
		}
	}
	w.aligned, w.unreplayable = false, watchVersion(pos)
	w.batcher.resetPosition(w.start)
	return true
}

// alignStart moves the position from start back to a common start of all sinks. Sinks that are
// behind the common start are caught up first, one after the other. If the API server can
// replay from no sink's position, the common start is start, and the list is returned that is
// due from there.
//
// After an error the position is start again, and some sinks may have been caught up.
func (w *Watcher) alignStart(ctx context.Context) (*relist, error) {
	start := w.batcher.at()
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
			// Not behind, or caught up before an error.
		case !found || !sameEpoch(p.Epoch, start.Epoch) || watchVersion(p) < from:
			late = append(late, sink)
		case p.Compare(common) < 0:
			common = p
		}
	}
	if found {
		common.Epoch, common.ListVersion = start.Epoch, 0
		if common.Version < from {
			common.ListVersion = from
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
		return w.relistOrRealign(reasonTooOld), nil
	}
	w.log.Info("reading for all sinks", "from", common)
	return nil, nil
}

// oldestReplayable returns the lowest version, among the positions of the sinks, from which the
// API server can replay. It does not test start itself, unless a list has to be read there: the
// watch will show.
func (w *Watcher) oldestReplayable(ctx context.Context, start event.Position) (version uint64, found bool, err error) {
	last := watchVersion(start)
	candidates := []uint64{last}
	for _, p := range w.positions {
		if v := watchVersion(p); v < last && sameEpoch(p.Epoch, start.Epoch) {
			candidates = append(candidates, v)
		}
	}
	slices.Sort(candidates)
	for _, v := range slices.Compact(candidates) {
		if v <= w.unreplayable {
			continue
		}
		if v == last && start.ListVersion == 0 {
			return v, true, nil
		}
		if ok, err := w.canReplayFrom(ctx, v); ok || err != nil {
			return v, ok, err
		}
	}
	return 0, false, nil
}

// canReplayFrom reports whether a watch can begin at a version: the API server can list the state
// as of it. The status 410 means no. Other errors leave it open: versions from the future are
// the subject of the check before each attempt.
func (w *Watcher) canReplayFrom(ctx context.Context, version uint64) (bool, error) {
	_, err := w.readPage(ctx, listAsOf(w.listPage("", 1), version), func([]byte) error { return nil })
	switch {
	case expired(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("check whether version %d can be replayed: %w", version, err)
	}
	return true, nil
}

// catchUp emits, for one sink alone, the listed states between the sink's position and the common
// start. If the API server can replay from the common start, the list is read as of its version.
func (w *Watcher) catchUp(ctx context.Context, sink string, to event.Position, replayable bool) error {
	from := w.positions[sink]
	l := w.newListing(relist{reason: reasonSinkBehind, epoch: to.Epoch}, from)
	to.Version = max(to.Version, l.start.Version) // the sink may be further in an interrupted list
	l.sink, l.log, l.to = sink, w.log.With("sink", sink), to
	switch {
	case from.IsZero():
		l.cause = "" // a new sink misses nothing
	case !from.Epoch.SameCluster(to.Epoch):
		l.cause = event.CauseOtherCluster
	case from.Epoch.Restores != to.Epoch.Restores:
		l.cause = event.CauseRestored
	}
	if replayable {
		l.asOf = watchVersion(to)
	}
	if err := l.run(ctx); err != nil {
		return err
	}
	w.positions[sink] = to
	return nil
}
