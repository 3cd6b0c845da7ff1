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
	minShortWatch  = 20 * time.Second
	maxShortWatch  = 30 * time.Second
	shortOvertime  = 15 * time.Second // after which a short watch that has not ended is closed
	suspectedFor   = 2 * time.Minute  // after which watches that only fail count as silent
	listsApart     = time.Minute      // the least time between lists while the source is stalled
	listsTimeShare = 4                // a list is followed by a pause of at least so many times its duration
)

// stallState is the evidence for and against the watches of a source. Only the loop
// uses it.
type stallState struct {
	opened  uint64 // version at which the last watch was opened
	brought bool   // that watch brought something newer
	short   bool   // watches are short

	shown     uint64    // version that a list showed and no watch has brought; 0: working or stalled
	shownAt   time.Time // time of that list
	probed    time.Time // when the loop last listed before it opened a watch
	nothing   uint64    // the version of that list, if it showed nothing newer than the position
	relisted  uint64    // version of the last list that replaced failing watches
	stalledAt time.Time // zero: not stalled
	nextList  time.Time
	openGap   *event.Gap // a gap that was declared without an end
}

// errSilent ends an open watch that is silent although a list shows a newer version.
type errSilent struct{ shown uint64 }

func (e errSilent) Error() string {
	return fmt.Sprintf("watch is silent although a list shows version %d", e.shown)
}

// resumeStall continues a stall that began in an earlier process, whose gap has no end
// yet.
func (w *Watcher) resumeStall() {
	for i, g := range w.gaps {
		if g.Source == w.namespace && g.Sink == "" && g.Cause == event.CauseStalled && g.To.Version == 0 {
			w.openGap = &w.gaps[i]
		}
	}
	if w.openGap != nil {
		gap := *w.openGap
		w.openGap, w.short, w.stalledAt = &gap, true, time.Now()
		w.health.stalled(w.stalledAt)
	}
}

const watchesWork = "watches work again"

func (w *Watcher) stalled() bool { return !w.stalledAt.IsZero() }

// watchTimes returns the timeout that the next watch asks the API server for, the
// timeout for its headers, and how long after its own timeout it may end.
func (w *Watcher) watchTimes() (length, answer, over time.Duration) {
	if !w.short {
		return minWatch + rand.N(maxWatch-minWatch), otherAnswerWithin, overtime
	}
	length = minShortWatch + rand.N(maxShortWatch-minShortWatch)
	// A proxy may hold the headers back as well. The deadline of the watch is the
	// only one.
	return length, length + 2*shortOvertime, shortOvertime
}

// suspect begins a suspicion.
func (w *Watcher) suspect(shown uint64) {
	w.shown, w.shownAt, w.short = shown, time.Now(), true
	pos, _ := w.hand.at()
	w.log.Warn("watch is silent although a list shows a newer event, checking with short watches", "position", pos, "listed", shown)
}

// silent reports whether the watch that has just ended counts against the watches:
// it was opened after a list had shown a newer version, and brought nothing.
func (w *Watcher) silent() bool {
	pos, _ := w.hand.at()
	if w.shown != 0 && w.shown <= pos.Version {
		w.log.Info("watch brought the version that the list had shown", "listed", w.shown, "after", time.Since(w.shownAt).Round(time.Millisecond))
		w.shown = 0
	}
	return w.shown != 0 && pos.Version == w.opened
}

// endedWell is called when the timeout of a watch is over; err is nil if the API
// server, or a proxy, has ended it in good order. It returns the list that is due, if
// any.
func (w *Watcher) endedWell(err error) *relist {
	w.strikes = 0
	if w.silent() {
		return w.stall()
	}
	if err != nil || w.shown != 0 || w.stalled() {
		return nil
	}
	// Nothing newer was listed, or it has been delivered.
	pos, _ := w.hand.at()
	if pos.Version == w.opened && w.nothing > pos.Version {
		to := pos
		to.Version = w.nothing
		w.hand.advance(pos, w.ours(event.Record{Position: to}))
	}
	w.nothing = 0
	if w.brought {
		// The watch worked, so it would have brought all versions up to its end. A watch
		// that brought nothing proves nothing: a state that it missed may have expired
		// before a list could show it.
		w.hand.prove()
	}
	return nil
}

// keepsFailing is called when watches from the position have failed too often. It
// returns a list to replace them; if watches from the version of that list fail too,
// they are suspected.
func (w *Watcher) keepsFailing(ctx context.Context, r reason) *relist {
	pos, _ := w.hand.at()
	switch {
	case w.stalled():
		return nil
	case w.silent():
		return w.stall()
	case w.relisted != pos.Version:
		return w.relistFor(r)
	}
	w.strikes = 0
	if !sleep(ctx, minShortWatch) {
		return nil
	}
	version, shown, err := w.glance(ctx, pos.Version)
	switch {
	case err != nil:
	case shown != 0 && w.shown == 0:
		w.suspect(shown)
	case shown == 0 && version > pos.Version:
		to := pos
		to.Version = version
		w.hand.advance(pos, w.ours(event.Record{Position: to}))
		w.relisted = version
	}
	return nil
}

// stall marks the source as stalled, and returns the list that replaces watches. While
// there are sinks further ahead, it returns none: a watch from there is tried first.
func (w *Watcher) stall() *relist {
	due := w.relistFor(stalled)
	if due == nil {
		return nil
	}
	closeConnections(w.client)
	w.metrics.stalls.Inc()
	w.shown, w.nothing, w.stalledAt = 0, 0, time.Now()
	w.health.stalled(w.stalledAt)
	w.log.Warn("watches bring nothing while lists show newer events, reading by lists until a watch works",
		"proven", w.hand.lastProven(), "lists_apart", listsApart,
		"hint", "look at the proxy or load balancer in front of the API server")
	return due
}

// listDue returns the next list of a stall if it is due.
func (w *Watcher) listDue() *relist {
	if !w.stalled() || time.Now().Before(w.nextList) {
		return nil
	}
	pos, _ := w.hand.at()
	return &relist{reason: stalled, epoch: pos.Epoch}
}

// listed updates the state after a list has been journaled.
func (w *Watcher) listed(l *listing, took time.Duration) {
	switch l.reason {
	case stalled:
		w.nextList = time.Now().Add(max(listsApart, listsTimeShare*took))
		if l.kept > 0 && l.openGap != nil {
			w.metrics.stalls.Inc() // the watch before it was silent as well
		}
	case watchFailing, closedAtOnce:
		w.relisted = l.to.Version
	}
}

// endStall ends the stall, if there is one: a watch is about to bring something newer
// than the position, or the epoch is over.
func (w *Watcher) endStall(ctx context.Context, why string) error {
	if err := w.endGap(ctx); err != nil {
		return err
	}
	if w.stalled() {
		w.log.Info(why, "after", time.Since(w.stalledAt).Round(time.Millisecond))
		w.stalledAt = time.Time{}
		w.health.stalled(w.stalledAt)
	}
	return nil
}

// endGap writes the record of the open gap again, with its end: the position.
func (w *Watcher) endGap(ctx context.Context) error {
	if w.openGap == nil {
		return nil
	}
	gap := *w.openGap
	gap.To, _ = w.hand.at()
	rec := event.NewGap(gap)
	rec.Position = event.Position{}
	if err := w.hand.put(ctx, w.ours(rec), nil, rec.Event.Size(), blockedFor); err != nil {
		return err
	}
	w.openGap = nil
	w.log.Warn("events may have been missed", "cause", gap.Cause, "from", gap.From, "to", gap.To)
	w.declared(gap)
	return nil
}

// probe lists before a watch is opened if the position has not moved for idleAfter and
// no list runs beside the watches, because they are short or fail.
func (w *Watcher) probe(ctx context.Context) {
	pos, moved := w.hand.at()
	if w.shown != 0 || w.stalled() || !w.short && !w.health.failing() ||
		time.Since(moved) < idleAfter || time.Since(w.probed) < idleAfter {
		return
	}
	w.probed, w.nothing = time.Now(), 0
	version, shown, err := w.glance(ctx, pos.Version)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			w.log.Debug("list before a watch failed", "err", err)
		}
	case shown != 0:
		w.suspect(shown)
	default:
		w.nothing = version
	}
}

// failedFor reports whether watches have failed, with any error, for as long as makes
// them count as silent.
func (w *Watcher) failedFor(err error) bool {
	return !denied(err) && !expired(err) && !errors.Is(err, errBlocked) && !errors.Is(err, errWentBack) &&
		w.silent() && time.Since(w.shownAt) >= suspectedFor
}
