package watch

import (
	"context"
	"errors"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/wait"
)

// A watch that is open and silent looks like the watch of a quiet cluster. Only a list can
// tell them apart, and only once the watch has ended: a proxy may delay the body of a response
// until then. So a source is in one of three states:
//
//	           a list shows a version, and the          a watch opened after that
//	           open watch is silent for 2m30s           list ends without any frame
//	working ─────────────────────────────► suspected ─────────────────────────► stalled
//	   ▲                                       │                                   │
//	   └──── a watch delivers that version ────┴── a watch delivers a newer one ───┘
//
// Working: watches last 2 to 4 minutes. The monitor (liveness.go) lists beside a watch that has
// been silent for 2 minutes. A watch that cannot be opened counts as silent: the loop lists
// before it opens the next one.
//
// Suspected: the silent watch is closed, and the next one begins at the same version. The API
// server can still replay from there: the version is at most 3 minutes old, and etcd keeps 5.
// Watches last 20 to 30 seconds and are never cut short, so a proxy that buffers delivers
// everything at their end. Within 2 minutes of the list, the source is working or stalled.
// Watches that end at once or with an invalid frame count as ended after three in a row; any
// other error does once the suspicion is 2 minutes old.
//
// After the suspicion, watches stay short until one has stayed open for 5 seconds after its
// first frame. Behind a proxy that buffers, they stay short for ever.
//
// Stalled: all connections are closed. One gap is declared, from the last version up to which a
// watch has proven to deliver everything, with an open end. The source is not ready. Lists, at
// most one a minute, read the latest states; short watches between them test whether watches
// work again. The first version that one of them delivers ends the stall: the gap record is
// emitted again with its end.
const (
	minShortWatch        = 20 * time.Second
	maxShortWatch        = 30 * time.Second
	shortWatchGrace      = 15 * time.Second // as watchGrace, for short watches
	suspicionTimeout     = 2 * time.Minute  // after which failing watches count as silent
	stallListInterval    = time.Minute      // minimum between lists of a stall
	stallListPauseFactor = 4                // minimum pause after a list, in durations of the list
)

// stallState is the evidence for and against the watches of a source. Only the loop uses it.
type stallState struct {
	openedVersion  uint64 // at which the last watch was opened
	deliveredNewer bool   // the last watch delivered a newer version
	shortWatches   bool

	suspectedVersion uint64    // listed, and not delivered by a watch; 0: working or stalled
	suspectedAt      time.Time // time of that list
	probedAt         time.Time // time of the last list before a watch
	probedVersion    uint64    // version of that list, if it showed nothing newer than the position
	relistedVersion  uint64    // version of the last list that replaced failing watches
	nextList         time.Time // of a stall
	openGap          *event.Gap
}

// resumeStall continues the stall of an earlier process, if its gap is still open.
func (w *Watcher) resumeStall() {
	for _, g := range w.knownGaps {
		if g.Source == w.namespace && g.Sink == "" && g.Cause == event.CauseStalled && g.To.Version == 0 {
			w.openGap = &g
		}
	}
	if w.openGap != nil {
		w.shortWatches = true
		w.health.setStalled(time.Now())
	}
}

func (w *Watcher) stalled() bool { return !w.health.stalledSince().IsZero() }

// suspect begins a suspicion.
func (w *Watcher) suspect(listed uint64) {
	w.suspectedVersion, w.suspectedAt, w.shortWatches = listed, time.Now(), true
	w.log.Warn("watch is silent although a list shows a newer event; checking with short watches",
		"position", w.batcher.at(), "listed", listed)
}

// provenSilent reports whether the watch that has just ended is evidence of a stall: it was
// opened after a list had shown a newer version, and delivered nothing.
func (w *Watcher) provenSilent() bool {
	pos := w.batcher.at()
	if w.suspectedVersion != 0 && w.suspectedVersion <= pos.Version {
		w.log.Info("watch delivered the listed event", "listed", w.suspectedVersion, "after", time.Since(w.suspectedAt).Round(time.Millisecond))
		w.suspectedVersion = 0
	}
	return w.suspectedVersion != 0 && pos.Version == w.openedVersion
}

// failedTooLong reports whether watches have failed, with any error, for so long that they
// count as silent.
func (w *Watcher) failedTooLong(err error) bool {
	return !denied(err) && !expired(err) && !errors.Is(err, errBlocked) && !errors.Is(err, errHistoryRewound) &&
		w.provenSilent() && time.Since(w.suspectedAt) >= suspicionTimeout
}

// endedCleanly handles a watch that ended after its timeout; err is nil if the API server or a
// proxy ended it. It returns the list that is due, if any.
func (w *Watcher) endedCleanly(err error) *relist {
	w.failedWatches = 0
	if w.provenSilent() {
		return w.beginStall()
	}
	if err != nil || w.suspectedVersion != 0 || w.stalled() {
		return nil
	}
	// All listed states have been delivered.
	if pos := w.batcher.at(); pos.Version == w.openedVersion && w.probedVersion > pos.Version {
		w.batcher.advanceTo(pos, w.probedVersion)
	}
	w.probedVersion = 0
	if w.deliveredNewer {
		// The watch worked, so it delivered all versions up to its end. A silent watch proves
		// nothing: a state that it missed may have expired before a list showed it.
		w.batcher.markProven()
	}
	return nil
}

// replaceWatches returns a list to replace watches that failed too often at one version. If
// watches from the version of that list fail too, they are suspected.
func (w *Watcher) replaceWatches(ctx context.Context, r relistReason) *relist {
	pos := w.batcher.at()
	switch {
	case w.stalled():
		return nil
	case w.provenSilent():
		return w.beginStall()
	case w.relistedVersion != pos.Version:
		return w.relistOrRealign(r)
	}
	w.failedWatches = 0
	if wait.Sleep(ctx, minShortWatch) != nil {
		return nil
	}
	version, newer, err := w.probe(ctx, pos.Version)
	switch {
	case err != nil:
	case newer != 0 && w.suspectedVersion == 0:
		w.suspect(newer)
	case newer == 0 && version > pos.Version:
		w.batcher.advanceTo(pos, version)
		w.relistedVersion = version
	}
	return nil
}

// listBeforeWatch probes before a watch is opened if the position is older than idleAfter and no
// monitor runs, because watches are short or fail.
func (w *Watcher) listBeforeWatch(ctx context.Context) {
	pos, added := w.batcher.positionAndTime()
	if w.suspectedVersion != 0 || w.stalled() || !w.shortWatches && !w.health.failing() ||
		time.Since(added) < idleAfter || time.Since(w.probedAt) < idleAfter {
		return
	}
	w.probedAt, w.probedVersion = time.Now(), 0
	version, newer, err := w.probe(ctx, pos.Version)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			w.log.Debug("list before a watch failed", "err", err)
		}
	case newer != 0:
		w.suspect(newer)
	default:
		w.probedVersion = version
	}
}

// beginStall marks the source as stalled, and returns the list that replaces watches; nil: sinks
// were realigned, and a watch from their position is tried first.
func (w *Watcher) beginStall() *relist {
	due := w.relistOrRealign(reasonStalled)
	if due == nil {
		return nil
	}
	closeConnections(w.client)
	w.metrics.stalls.Inc()
	w.suspectedVersion, w.probedVersion = 0, 0
	w.health.setStalled(time.Now())
	w.log.Warn("watches deliver nothing while lists show newer events; reading by lists until a watch works",
		"proven", w.batcher.lastProven(), "list_interval", stallListInterval,
		"hint", "look at the proxy or load balancer in front of the API server")
	return due
}

// stallListDue returns the next list of a stall, if it is due.
func (w *Watcher) stallListDue() *relist {
	if !w.stalled() || time.Now().Before(w.nextList) {
		return nil
	}
	return &relist{reason: reasonStalled, epoch: w.batcher.at().Epoch}
}

// afterList updates the state after a list was emitted.
func (w *Watcher) afterList(l *listing, took time.Duration) {
	switch l.reason {
	case reasonStalled:
		w.nextList = time.Now().Add(max(stallListInterval, stallListPauseFactor*took))
		if l.kept > 0 && l.openGap != nil {
			w.metrics.stalls.Inc() // the watch before the list was silent as well
		}
	case reasonWatchFailing, reasonClosedAtOnce:
		w.relistedVersion = l.to.Version
	}
}

// endStall ends the stall, if there is one: a watch has delivered a version that is newer than
// the position, or the epoch has ended.
func (w *Watcher) endStall(ctx context.Context, reason string) error {
	if err := w.closeOpenGap(ctx); err != nil {
		return err
	}
	if since := w.health.stalledSince(); !since.IsZero() {
		w.log.Info("stall ended", "reason", reason, "after", time.Since(since).Round(time.Millisecond))
		w.health.setStalled(time.Time{})
	}
	return nil
}
