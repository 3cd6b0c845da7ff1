package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// A watch that is open and silent looks like one of a quiet cluster. Only a list
// can tell them apart, and only once the watch has ended: a proxy may hold the
// body of a response back until then. So a source is in one of three states:
//
//	           a list shows a version, and the          a watch opened after that
//	           open watch is silent for 2m30s           list ends and brought nothing
//	working ─────────────────────────────► suspected ─────────────────────────► stalled
//	   ▲                                       │                                   │
//	   └──────── a watch brings the version ───┴── a watch brings anything newer ──┘
//
// Working: watches last 2 to 4 minutes. A list runs beside one that has been silent
// for 2 minutes (liveness is in idle.go). A watch that cannot be opened at all is
// treated as a silent one: the loop lists before it opens the next.
//
// Suspected: the silent watch is closed and the next one begins at the same
// version, where the API server can still replay: that version is at most 3 minutes
// old, and etcd keeps 5. Watches last 20 to 30 seconds and are never cut short, so
// a proxy that buffers delivers everything at their end. The verdict comes within 2
// minutes of the list. Watches that end at once or with a broken frame count as
// ended after three in a row; any other error, once the suspicion is 2 minutes old.
//
// Watches stay short after the suspicion until one of them has stayed open for 5
// seconds after it brought something. Behind a proxy that buffers, they stay short
// for good.
//
// Stalled: all connections are closed, and one gap is declared from the last version
// that a watch has proven to an open end. The source is unready. Lists, at most one
// a minute, bring the latest states; short watches between them find out whether
// watches work again. The first version that one of them brings ends the stretch:
// the gap's record is written again with its end.
const (
	minShortWatch        = 20 * time.Second
	maxShortWatch        = 30 * time.Second
	shortWatchGrace      = 15 * time.Second // after which a short watch that has not ended is closed
	suspicionTimeout     = 2 * time.Minute  // after which watches that only fail count as silent
	stallListInterval    = time.Minute      // the least time between lists while the source is stalled
	stallListPauseFactor = 4                // a list is followed by a pause of at least so many times its duration
)

// stallState is the evidence for and against the watches of a source. Only the loop
// uses it.
type stallState struct {
	openedVersion  uint64 // version at which the last watch was opened
	deliveredNewer bool   // that watch brought something newer
	shortWatches   bool   // watches are short

	suspectedVersion uint64    // version that a list showed and no watch has brought; 0: working or stalled
	suspectedAt      time.Time // time of that list
	probedAt         time.Time // when the loop last listed before it opened a watch
	probedVersion    uint64    // the version of that list, if it showed nothing newer than the position
	relistedVersion  uint64    // version of the last list that replaced failing watches
	stalledAt        time.Time // zero: not stalled
	nextList         time.Time
	openGap          *event.Gap // a gap that was declared without an end
}

// errSilent ends an open watch that is silent although a list shows a newer version.
type errSilent struct{ listed uint64 }

func (e errSilent) Error() string {
	return fmt.Sprintf("watch is silent although a list shows version %d", e.listed)
}

// resumeStall continues a stall that began in an earlier process, whose gap has no end
// yet.
func (w *Watcher) resumeStall() {
	for i, g := range w.knownGaps {
		if g.Source == w.namespace && g.Sink == "" && g.Cause == event.CauseStalled && g.To.Version == 0 {
			w.openGap = &w.knownGaps[i]
		}
	}
	if w.openGap != nil {
		gap := *w.openGap
		w.openGap, w.shortWatches, w.stalledAt = &gap, true, time.Now()
		w.health.setStalled(w.stalledAt)
	}
}

const watchesWorkAgain = "watches work again"

func (w *Watcher) stalled() bool { return !w.stalledAt.IsZero() }

// watchTimeouts returns the timeout that the next watch asks the API server for, the
// timeout for its headers, and how long after its own timeout it may end.
func (w *Watcher) watchTimeouts() (length, answer, over time.Duration) {
	if !w.shortWatches {
		return minWatch + rand.N(maxWatch-minWatch), headerTimeout, watchGrace
	}
	length = minShortWatch + rand.N(maxShortWatch-minShortWatch)
	// A proxy may hold the headers back as well. The deadline of the watch is the
	// only one.
	return length, length + 2*shortWatchGrace, shortWatchGrace
}

// suspect begins a suspicion.
func (w *Watcher) suspect(shown uint64) {
	w.suspectedVersion, w.suspectedAt, w.shortWatches = shown, time.Now(), true
	pos, _ := w.batcher.positionAndTime()
	w.log.Warn("watch is silent although a list shows a newer event, checking with short watches", "position", pos, "listed", shown)
}

// isSilent reports whether the watch that has just ended counts against the watches:
// it was opened after a list had shown a newer version, and brought nothing.
func (w *Watcher) isSilent() bool {
	pos, _ := w.batcher.positionAndTime()
	if w.suspectedVersion != 0 && w.suspectedVersion <= pos.Version {
		w.log.Info("watch brought the version that the list had shown", "listed", w.suspectedVersion, "after", time.Since(w.suspectedAt).Round(time.Millisecond))
		w.suspectedVersion = 0
	}
	return w.suspectedVersion != 0 && pos.Version == w.openedVersion
}

// endedCleanly is called when the timeout of a watch is over; err is nil if the API
// server, or a proxy, has ended it in good order. It returns the list that is due, if
// any.
func (w *Watcher) endedCleanly(err error) *relist {
	w.failedWatches = 0
	if w.isSilent() {
		return w.beginStall()
	}
	if err != nil || w.suspectedVersion != 0 || w.stalled() {
		return nil
	}
	// Nothing newer was listed, or it has been delivered.
	pos, _ := w.batcher.positionAndTime()
	if pos.Version == w.openedVersion && w.probedVersion > pos.Version {
		to := pos
		to.Version = w.probedVersion
		w.batcher.advance(pos, w.ours(event.Record{Position: to}))
	}
	w.probedVersion = 0
	if w.deliveredNewer {
		// The watch worked, so it would have brought all versions up to its end. A watch
		// that brought nothing proves nothing: a state that it missed may have expired
		// before a list could show it.
		w.batcher.markProven()
	}
	return nil
}

// replaceWatches is called when watches from the position have failed too often. It
// returns a list to replace them; if watches from the version of that list fail too,
// they are suspected.
func (w *Watcher) replaceWatches(ctx context.Context, r relistReason) *relist {
	pos, _ := w.batcher.positionAndTime()
	switch {
	case w.stalled():
		return nil
	case w.isSilent():
		return w.beginStall()
	case w.relistedVersion != pos.Version:
		return w.relistFor(r)
	}
	w.failedWatches = 0
	if !sleep(ctx, minShortWatch) {
		return nil
	}
	version, shown, err := w.probe(ctx, pos.Version)
	switch {
	case err != nil:
	case shown != 0 && w.suspectedVersion == 0:
		w.suspect(shown)
	case shown == 0 && version > pos.Version:
		to := pos
		to.Version = version
		w.batcher.advance(pos, w.ours(event.Record{Position: to}))
		w.relistedVersion = version
	}
	return nil
}

// beginStall marks the source as stalled, and returns the list that replaces watches. While
// there are sinks further ahead, it returns none: a watch from there is tried first.
func (w *Watcher) beginStall() *relist {
	due := w.relistFor(reasonStalled)
	if due == nil {
		return nil
	}
	closeConnections(w.client)
	w.metrics.stalls.Inc()
	w.suspectedVersion, w.probedVersion, w.stalledAt = 0, 0, time.Now()
	w.health.setStalled(w.stalledAt)
	w.log.Warn("watches bring nothing while lists show newer events, reading by lists until a watch works",
		"proven", w.batcher.lastProven(), "lists_apart", stallListInterval,
		"hint", "look at the proxy or load balancer in front of the API server")
	return due
}

// stallListDue returns the next list of a stall if it is due.
func (w *Watcher) stallListDue() *relist {
	if !w.stalled() || time.Now().Before(w.nextList) {
		return nil
	}
	pos, _ := w.batcher.positionAndTime()
	return &relist{reason: reasonStalled, epoch: pos.Epoch}
}

// afterList updates the state after a list has been journaled.
func (w *Watcher) afterList(l *listing, took time.Duration) {
	switch l.reason {
	case reasonStalled:
		w.nextList = time.Now().Add(max(stallListInterval, stallListPauseFactor*took))
		if l.kept > 0 && l.openGap != nil {
			w.metrics.stalls.Inc() // the watch before it was silent as well
		}
	case reasonWatchFailing, reasonClosedAtOnce:
		w.relistedVersion = l.to.Version
	}
}

// endStall ends the stall, if there is one: a watch is about to bring something newer
// than the position, or the epoch is over.
func (w *Watcher) endStall(ctx context.Context, why string) error {
	if err := w.closeOpenGap(ctx); err != nil {
		return err
	}
	if w.stalled() {
		w.log.Info(why, "after", time.Since(w.stalledAt).Round(time.Millisecond))
		w.stalledAt = time.Time{}
		w.health.setStalled(w.stalledAt)
	}
	return nil
}

// closeOpenGap writes the record of the open gap again, with its end: the position.
func (w *Watcher) closeOpenGap(ctx context.Context) error {
	if w.openGap == nil {
		return nil
	}
	gap := *w.openGap
	gap.To, _ = w.batcher.positionAndTime()
	rec := event.NewGap(gap)
	rec.Position = event.Position{}
	if err := w.batcher.add(ctx, w.ours(rec), nil, rec.Event.Size(), closeWhenBlockedFor); err != nil {
		return err
	}
	w.openGap = nil
	w.log.Warn("events may have been missed", "cause", gap.Cause, "from", gap.From, "to", gap.To)
	w.rememberGap(gap)
	return nil
}

// probeBeforeWatch lists before a watch is opened if the position has not moved for idleAfter and
// no list runs beside the watches, because they are short or fail.
func (w *Watcher) probeBeforeWatch(ctx context.Context) {
	pos, moved := w.batcher.positionAndTime()
	if w.suspectedVersion != 0 || w.stalled() || !w.shortWatches && !w.health.failing() ||
		time.Since(moved) < idleAfter || time.Since(w.probedAt) < idleAfter {
		return
	}
	w.probedAt, w.probedVersion = time.Now(), 0
	version, shown, err := w.probe(ctx, pos.Version)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			w.log.Debug("list before a watch failed", "err", err)
		}
	case shown != 0:
		w.suspect(shown)
	default:
		w.probedVersion = version
	}
}

// failedTooLong reports whether watches have failed, with any error, for as long as makes
// them count as silent.
func (w *Watcher) failedTooLong(err error) bool {
	return !denied(err) && !expired(err) && !errors.Is(err, errBlocked) && !errors.Is(err, errHistoryRewound) &&
		w.isSilent() && time.Since(w.suspectedAt) >= suspicionTimeout
}
