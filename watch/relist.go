package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/extsort"
)

// Lengths of the pages of a list. Most lists fit into the first. Of a long one,
// pages are long too: its continue token lasts no longer than the version it
// stands for, 5 minutes by default, and each page costs the API server as much
// as any other request.
const (
	firstPage = 500
	nextPages = 10_000
)

// memorySortMax bounds what a list may take in memory if its spool file fails.
const memorySortMax = 32 << 20

// relistReason is why a list is due.
type relistReason string

const (
	reasonFirst        relistReason = "first"          // nothing is known of the source
	reasonInterrupted  relistReason = "interrupted"    // the last list was not taken in whole
	reasonTooOld       relistReason = "too_old"        // the API server cannot replay from the position
	reasonWatchFailing relistReason = "watch_failing"  // no watch from the position succeeds
	reasonClosedAtOnce relistReason = "closed_at_once" // every watch from the position ends at once
	reasonRestored     relistReason = "restored"       // etcd went back to an earlier state
	reasonOtherCluster relistReason = "other_cluster"  // another cluster answers
	reasonStalled      relistReason = "stalled"        // watches bring nothing
	reasonSinkBehind   relistReason = "behind"         // a sink stands where the watch cannot begin
)

// gapCauses are all of them, with the cause of the gap that such a list leaves; for
// behind, the usual one.
var gapCauses = map[relistReason]event.Cause{
	reasonFirst:        "",
	reasonInterrupted:  "",
	reasonTooOld:       event.CauseTooOld,
	reasonWatchFailing: event.CauseTooOld,
	reasonClosedAtOnce: event.CauseTooOld,
	reasonRestored:     event.CauseRestored,
	reasonOtherCluster: event.CauseOtherCluster,
	reasonStalled:      event.CauseStalled,
	reasonSinkBehind:   event.CauseTooOld,
}

// relist is a list that is due.
type relist struct {
	reason relistReason
	epoch  event.Epoch // in which it will be taken
}

// listing is a list while it is taken in: fetched page by page into a spool,
// then handed over in the order of versions. Pages come in the order of keys, and
// handed over like that a destination such as Loki would refuse what is an hour
// older than what came before it.
type listing struct {
	w   *Watcher
	log *slog.Logger
	relist
	sink  string         // the only one that it is for; empty: all
	cause event.Cause    // of the gap that it leaves; empty: none
	from  event.Position // where the source stood
	start event.Position // the same in the epoch of the list
	to    event.Position // where it stands afterwards; if that is the version of the list, zero before the first page
	asOf  uint64         // the version as of which it is read; zero: the newest

	openGap *event.Gap // in which the list lies; nil: none that was declared before

	sorter   extsort.Sorter
	stripped []byte // the state that is on its way there
	counts
	parts   int // handed over so far
	emitted int
}

// counts of the items of a list, or of a page.
type counts struct {
	items       int
	alreadySeen int // not newer than the position
	undecodable int
	kept        int
	missed      int   // states that must have been overwritten inside the gap
	newestWrite int64 // write of a kept one, in seconds since 1970
}

func (c *counts) add(o counts) {
	c.items += o.items
	c.alreadySeen += o.alreadySeen
	c.undecodable += o.undecodable
	c.kept += o.kept
	c.missed += o.missed
	c.newestWrite = max(c.newestWrite, o.newestWrite)
}

// errHistoryRewound is returned where the newest version there is, is older than the
// position.
var errHistoryRewound = errors.New("the API server's versions went back")

// list takes in everything that is newer than the position and not newer than
// the list itself, after which a watch can begin at the list's version. Where
// states may have been missed, it says so first: the gap's record is in front
// of all that fills it, so that no interruption can lose it or bring it twice.
//
// It returns errWentBack, or an error of status 410 if the version of an
// interrupted list is gone, and keeps trying on any other.
func (w *Watcher) list(ctx context.Context, due relist) error {
	from, _ := w.batcher.positionAndTime()
	l := w.newListing(due, from)
	if due.reason == reasonInterrupted {
		// As it was: so nothing is missed that was overwritten since.
		l.asOf = from.Listed
	}
	if due.reason == reasonStalled {
		l.from, l.openGap = w.batcher.lastProven(), w.openGap
	}
	start := time.Now()
	if err := l.run(ctx); err != nil {
		return err
	}
	w.afterList(l, time.Since(start))
	return nil
}

func (w *Watcher) newListing(due relist, from event.Position) *listing {
	l := &listing{
		w: w, log: w.log, relist: due, cause: gapCauses[due.reason],
		from: from, start: from, sorter: extsort.Sorter{Dir: w.sortDir},
	}
	if due.reason == reasonFirst || !sameEpoch(from.Epoch, due.epoch) {
		// Versions of another epoch say nothing about those of this one.
		l.start = event.Position{}
	}
	l.start.Epoch = due.epoch
	return l
}

// run takes the list in.
func (l *listing) run(ctx context.Context) error {
	w := l.w
	defer l.sorter.Reset()
	start := time.Now()
	if err := l.fetch(ctx); err != nil {
		return err
	}
	if err := l.flush(ctx, true); err != nil {
		return err
	}
	l.finish()
	w.metrics.relists[l.reason].Inc()
	w.metrics.seen.Add(float64(l.alreadySeen))
	w.skippedCount.Add(int64(l.alreadySeen))
	level := slog.LevelInfo
	if l.openGap != nil {
		level = slog.LevelDebug // one of many
	}
	l.log.Log(ctx, level, "listed events", "why", l.reason, "from", l.from, "to", l.to,
		"listed", l.items, "emitted", l.emitted, "skipped_as_seen", l.alreadySeen, "undecodable", l.undecodable,
		"took", time.Since(start).Round(time.Millisecond))
	return nil
}

// fetch reads all pages into the spool.
func (l *listing) fetch(ctx context.Context) error {
	w := l.w
	token, limit := "", firstPage
	for ctx.Err() == nil {
		p, err := l.fetchPage(ctx, token, limit)
		switch code := status(err); {
		case err == nil:
			w.succeeded()
			token, limit = p.continueToken, nextPages
			if err := l.spill(ctx); err != nil {
				return err
			}
			if token == "" {
				return nil
			}

		case errors.Is(err, errHistoryRewound):
			return err

		case apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
			// etcd was restored while the list was read.
			return fmt.Errorf("%w: %w", errHistoryRewound, err)

		case code == http.StatusGone && l.asOf != 0 && token == "":
			if l.reason == reasonInterrupted {
				return err
			}
			// The gap is declared anyway: what is still to be seen of it will do.
			l.asOf, l.counts = 0, counts{}

		case code == http.StatusGone, code == http.StatusBadRequest && token != "":
			// The list outlived its version, or another API server answers than the one
			// that issued the token. The error may carry a token to continue with at
			// the newest version; what is newer than the list's own is left to the
			// watch. Else the list starts over. What was fetched stays: in the spool,
			// states collapse by version.
			w.backOff(ctx, "continue list", err)
			if token = continueToken(err); token == "" {
				limit, l.counts = firstPage, counts{}
			}

		default:
			// Also a page that broke off: it is fetched again from its beginning.
			w.backOff(ctx, "list", err)
		}
	}
	return context.Cause(ctx)
}

// fetchPage reads one page into the spool.
func (l *listing) fetchPage(ctx context.Context, token string, limit int) (pageInfo, error) {
	req := l.w.listPage(token, limit)
	if l.asOf != 0 && token == "" {
		listAsOf(req, l.asOf)
	}
	var c counts
	var clock time.Time // when the answer came
	p, err := l.w.readPage(ctx, req, func(item []byte, err error) error {
		if clock.IsZero() {
			clock = l.w.clock.now()
		}
		l.add(item, err, clock, &c)
		return nil
	})
	if err != nil {
		return p, err
	}
	if p.version < max(replayFrom(l.start), replayFrom(l.to)) {
		return p, fmt.Errorf("%w: list at version %d", errHistoryRewound, p.version)
	}
	if l.to.IsZero() {
		l.to = event.Position{Epoch: l.epoch, Version: p.version}
	}
	l.counts.add(c)
	return p, nil
}

// add takes in an item, or counts one that could not be decoded.
func (l *listing) add(item []byte, err error, clock time.Time, c *counts) {
	var m eventMeta
	if err == nil {
		m, err = parseMeta(item, clock)
	}
	if c.items++; c.items%1000 == 0 {
		l.w.health.heartbeat() // a page can take minutes
	}
	switch {
	case err != nil:
		c.undecodable++
		l.w.countUndecodable(err)
	case m.version <= l.start.Version:
		c.alreadySeen++
	case !l.to.IsZero() && m.version > l.to.Version:
		// Left to the watch.
	default:
		c.kept++
		c.newestWrite = max(c.newestWrite, m.written)
		// It did not exist when the last state before the gap was written, and it
		// was written again after it was created: its first state is gone. How many
		// others were overwritten or deleted nobody knows.
		if !l.from.Time.IsZero() && m.created > l.from.Time.Unix() && m.written > m.created {
			c.missed++
		}
		l.stripped = stripManagedFields(l.stripped[:0], item)
		l.sorter.Add(m.version, l.stripped)
	}
}

// spill hands over what the spool holds if that is as much as it may, although
// states of lower versions may follow.
func (l *listing) spill(ctx context.Context) error {
	size, inMemory := l.sorter.Size()
	fileErr := l.sorter.FileErr()
	if size <= l.w.sortMaxBytes && (fileErr == nil || inMemory <= memorySortMax) {
		return nil
	}
	args := []any{"bytes", size, "max_bytes", l.w.sortMaxBytes}
	if fileErr != nil {
		args = append(args, "err", fileErr)
	}
	level := slog.LevelWarn
	if l.parts > 0 {
		level = slog.LevelDebug
	}
	l.log.Log(ctx, level, "list is too long for its spool, events will not be in order throughout", args...)
	l.w.metrics.overflows.Inc()
	return l.flush(ctx, false)
}

// flush hands over what is in the spool, in order.
func (l *listing) flush(ctx context.Context, last bool) error {
	if l.parts == 0 {
		begin := l.start
		begin.Listed = replayFrom(l.to)
		l.w.batcher.resetPosition(begin)
		if err := l.declareGap(ctx); err != nil {
			return err
		}
	}
	l.parts++
	clock := l.w.clock.now()
	return l.sorter.Drain(func(_ uint64, state []byte) error {
		room := l.w.batcher.newBuffer()
		e, err := room.DecodeAt(state, clock)
		if err != nil {
			l.w.batcher.recycle(room)
			l.undecodable++
			l.w.countUndecodable(err)
			return nil
		}
		rec := event.NewAt(e, clock)
		if !last {
			// States of lower versions may follow: the position stays.
			rec.Position = event.Position{}
		}
		rec.To = l.sink
		l.emitted++
		return l.w.addBlocking(ctx, rec, room, len(state))
	})
}

// declareGap hands over the record of the gap that the list leaves, if any.
func (l *listing) declareGap(ctx context.Context) error {
	if l.cause == "" || l.openGap != nil {
		return nil
	}
	if l.reason == reasonClosedAtOnce && l.kept == 0 {
		// There was nothing to replay. Some proxies close watches on which nothing
		// happens.
		return nil
	}
	to := event.Position{Epoch: l.to.Epoch, Version: replayFrom(l.to), Time: l.to.Time}
	if l.newestWrite != 0 {
		to.Time = event.Earlier(time.Unix(l.newestWrite, 0), l.w.clock.now())
	}
	gap := event.Gap{
		Source: l.w.namespace, Namespace: l.w.ownNamespace, Sink: l.sink,
		From: l.from, To: to, Cause: l.cause, MissedAtLeast: l.missed,
	}
	if l.reason == reasonStalled {
		// It has not ended. More is missed until it has.
		gap.To = event.Position{Time: gap.To.Time}
		l.w.openGap = &gap
	}
	l.w.useKnownGap(&gap)
	l.w.metrics.gaps[l.cause].Inc()
	l.log.Warn("events may have been missed", "cause", gap.Cause, "from", gap.From, "to", gap.To, "missed_at_least", gap.MissedAtLeast)
	l.w.rememberGap(gap)
	rec := event.NewGap(gap)
	rec.Position = event.Position{} // put says where: at the beginning of this list
	return l.w.addBlocking(ctx, rec, nil, rec.Event.Size())
}

// useKnownGap makes a gap that was declared before, perhaps by another replica and
// to another sink, say the same again. What a list shows of it changes with time,
// and is less where a part of it was taken in already.
func (w *Watcher) useKnownGap(g *event.Gap) {
	for _, known := range w.knownGaps {
		if known.Source == g.Source && known.From.String() == g.From.String() && known.To.String() == g.To.String() {
			known.Sink = g.Sink
			*g = known
			return
		}
	}
}

// rememberGap keeps a gap in mind, in place of the same one without an end.
func (w *Watcher) rememberGap(g event.Gap) {
	if w.knownGaps = slices.DeleteFunc(w.knownGaps, g.Covers); !slices.Contains(w.knownGaps, g) {
		w.knownGaps = append(w.knownGaps, g)
	}
	if w.onGap != nil {
		w.onGap(g)
	}
}

// finish moves the position to where the list ends.
func (l *listing) finish() {
	last, _ := l.w.batcher.positionAndTime()
	if last.Time.After(l.to.Time) {
		l.to.Time = last.Time
	}
	l.w.batcher.advance(last, l.w.ours(event.Record{Position: l.to, To: l.sink}))
	l.w.batcher.markProven()
}

// addBlocking hands a record over, however long that takes. There must be no open
// connection meanwhile.
func (w *Watcher) addBlocking(ctx context.Context, rec event.Record, in *event.Room, size int) error {
	for {
		err := w.batcher.add(ctx, w.ours(rec), in, size, heartbeatInterval)
		if err != errBlocked {
			return err
		}
		w.health.heartbeat()
	}
}
