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

// memorySpool bounds what a list may take in memory if its spool file fails.
const memorySpool = 32 << 20

// reason is why a list is due.
type reason string

const (
	first        reason = "first"          // nothing is known of the source
	interrupted  reason = "interrupted"    // the last list was not taken in whole
	tooOld       reason = "too_old"        // the API server cannot replay from the position
	watchFailing reason = "watch_failing"  // no watch from the position succeeds
	closedAtOnce reason = "closed_at_once" // every watch from the position ends at once
	restored     reason = "restored"       // etcd went back to an earlier state
	otherCluster reason = "other_cluster"  // another cluster answers
	stalled      reason = "stalled"        // watches bring nothing
	behind       reason = "behind"         // a sink stands where the watch cannot begin
)

// reasons are all of them, with the cause of the gap that such a list leaves; for
// behind, the usual one.
var reasons = map[reason]event.Cause{
	first:        "",
	interrupted:  "",
	tooOld:       event.CauseTooOld,
	watchFailing: event.CauseTooOld,
	closedAtOnce: event.CauseTooOld,
	restored:     event.CauseRestored,
	otherCluster: event.CauseOtherCluster,
	stalled:      event.CauseStalled,
	behind:       event.CauseTooOld,
}

// relist is a list that is due.
type relist struct {
	reason reason
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
	begin event.Position // the same in the epoch of the list
	to    event.Position // where it stands afterwards; if that is the version of the list, zero before the first page
	exact uint64         // the version as of which it is read; zero: the newest

	openGap *event.Gap // in which the list lies; nil: none that was declared before

	spool   extsort.Sorter
	trimmed []byte // the state that is on its way there
	counts
	parts   int // handed over so far
	emitted int
}

// counts of the items of a list, or of a page.
type counts struct {
	items       int
	seen        int // not newer than the position
	undecodable int
	kept        int
	missed      int   // states that must have been overwritten inside the gap
	newest      int64 // write of a kept one, in seconds since 1970
}

func (c *counts) add(o counts) {
	c.items += o.items
	c.seen += o.seen
	c.undecodable += o.undecodable
	c.kept += o.kept
	c.missed += o.missed
	c.newest = max(c.newest, o.newest)
}

// errWentBack is returned where the newest version there is, is older than the
// position.
var errWentBack = errors.New("the API server's versions went back")

// list takes in everything that is newer than the position and not newer than
// the list itself, after which a watch can begin at the list's version. Where
// states may have been missed, it says so first: the gap's record is in front
// of all that fills it, so that no interruption can lose it or bring it twice.
//
// It returns errWentBack, or an error of status 410 if the version of an
// interrupted list is gone, and keeps trying on any other.
func (w *Watcher) list(ctx context.Context, due relist) error {
	from, _ := w.hand.at()
	l := w.newListing(due, from)
	if due.reason == interrupted {
		// As it was: so nothing is missed that was overwritten since.
		l.exact = from.Listed
	}
	if due.reason == stalled {
		l.from, l.openGap = w.hand.lastProven(), w.openGap
	}
	start := time.Now()
	if err := l.run(ctx); err != nil {
		return err
	}
	w.listed(l, time.Since(start))
	return nil
}

func (w *Watcher) newListing(due relist, from event.Position) *listing {
	l := &listing{
		w: w, log: w.log, relist: due, cause: reasons[due.reason],
		from: from, begin: from, spool: extsort.Sorter{Dir: w.spoolDir},
	}
	if due.reason == first || !sameEpoch(from.Epoch, due.epoch) {
		// Versions of another epoch say nothing about those of this one.
		l.begin = event.Position{}
	}
	l.begin.Epoch = due.epoch
	return l
}

// run takes the list in.
func (l *listing) run(ctx context.Context) error {
	w := l.w
	defer l.spool.Reset()
	start := time.Now()
	if err := l.fetch(ctx); err != nil {
		return err
	}
	if err := l.handOver(ctx, true); err != nil {
		return err
	}
	l.end()
	w.metrics.relists[l.reason].Inc()
	w.metrics.seen.Add(float64(l.seen))
	w.skipped.Add(int64(l.seen))
	level := slog.LevelInfo
	if l.openGap != nil {
		level = slog.LevelDebug // one of many
	}
	l.log.Log(ctx, level, "listed events", "why", l.reason, "from", l.from, "to", l.to,
		"listed", l.items, "emitted", l.emitted, "skipped_as_seen", l.seen, "undecodable", l.undecodable,
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
			w.worked()
			token, limit = p.continueToken, nextPages
			if err := l.relieve(ctx); err != nil {
				return err
			}
			if token == "" {
				return nil
			}

		case errors.Is(err, errWentBack):
			return err

		case apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
			// etcd was restored while the list was read.
			return fmt.Errorf("%w: %w", errWentBack, err)

		case code == http.StatusGone && l.exact != 0 && token == "":
			if l.reason == interrupted {
				return err
			}
			// The gap is declared anyway: what is still to be seen of it will do.
			l.exact, l.counts = 0, counts{}

		case code == http.StatusGone, code == http.StatusBadRequest && token != "":
			// The list outlived its version, or another API server answers than the one
			// that issued the token. The error may carry a token to continue with at
			// the newest version; what is newer than the list's own is left to the
			// watch. Else the list starts over. What was fetched stays: in the spool,
			// states collapse by version.
			w.retry(ctx, "continue list", err)
			if token = continued(err); token == "" {
				limit, l.counts = firstPage, counts{}
			}

		default:
			// Also a page that broke off: it is fetched again from its beginning.
			w.retry(ctx, "list", err)
		}
	}
	return context.Cause(ctx)
}

// fetchPage reads one page into the spool.
func (l *listing) fetchPage(ctx context.Context, token string, limit int) (page, error) {
	req := l.w.listPage(token, limit)
	if l.exact != 0 && token == "" {
		asOf(req, l.exact)
	}
	var c counts
	var clock time.Time // when the answer came
	p, err := l.w.readPage(ctx, req, func(item []byte, err error) error {
		if clock.IsZero() {
			clock = l.w.clock.now()
		}
		l.visit(item, err, clock, &c)
		return nil
	})
	if err != nil {
		return p, err
	}
	if p.version < max(replayFrom(l.begin), replayFrom(l.to)) {
		return p, fmt.Errorf("%w: list at version %d", errWentBack, p.version)
	}
	if l.to.IsZero() {
		l.to = event.Position{Epoch: l.epoch, Version: p.version}
	}
	l.counts.add(c)
	return p, nil
}

// visit takes in an item, or counts one that could not be decoded.
func (l *listing) visit(item []byte, err error, clock time.Time, c *counts) {
	var m meta
	if err == nil {
		m, err = peek(item, clock)
	}
	if c.items++; c.items%1000 == 0 {
		l.w.health.turned() // a page can take minutes
	}
	switch {
	case err != nil:
		c.undecodable++
		l.w.undecodable(err)
	case m.version <= l.begin.Version:
		c.seen++
	case !l.to.IsZero() && m.version > l.to.Version:
		// Left to the watch.
	default:
		c.kept++
		c.newest = max(c.newest, m.written)
		// It did not exist when the last state before the gap was written, and it
		// was written again after it was created: its first state is gone. How many
		// others were overwritten or deleted nobody knows.
		if !l.from.Time.IsZero() && m.created > l.from.Time.Unix() && m.written > m.created {
			c.missed++
		}
		l.trimmed = trim(l.trimmed[:0], item)
		l.spool.Add(m.version, l.trimmed)
	}
}

// relieve hands over what the spool holds if that is as much as it may, although
// states of lower versions may follow.
func (l *listing) relieve(ctx context.Context) error {
	size, inMemory := l.spool.Size()
	fileErr := l.spool.FileErr()
	if size <= l.w.spoolMax && (fileErr == nil || inMemory <= memorySpool) {
		return nil
	}
	args := []any{"bytes", size, "max_bytes", l.w.spoolMax}
	if fileErr != nil {
		args = append(args, "err", fileErr)
	}
	level := slog.LevelWarn
	if l.parts > 0 {
		level = slog.LevelDebug
	}
	l.log.Log(ctx, level, "list is too long for its spool, events will not be in order throughout", args...)
	l.w.metrics.overflows.Inc()
	return l.handOver(ctx, false)
}

// handOver hands over what is in the spool, in order.
func (l *listing) handOver(ctx context.Context, last bool) error {
	if l.parts == 0 {
		begin := l.begin
		begin.Listed = replayFrom(l.to)
		l.w.hand.set(begin)
		if err := l.declareGap(ctx); err != nil {
			return err
		}
	}
	l.parts++
	clock := l.w.clock.now()
	return l.spool.Drain(func(_ uint64, state []byte) error {
		room := l.w.hand.newRoom()
		e, err := room.DecodeAt(state, clock)
		if err != nil {
			l.w.hand.free(room)
			l.undecodable++
			l.w.undecodable(err)
			return nil
		}
		rec := event.NewAt(e, clock)
		if !last {
			// States of lower versions may follow: the position stays.
			rec.Position = event.Position{}
		}
		rec.To = l.sink
		l.emitted++
		return l.w.put(ctx, rec, room, len(state))
	})
}

// declareGap hands over the record of the gap that the list leaves, if any.
func (l *listing) declareGap(ctx context.Context) error {
	if l.cause == "" || l.openGap != nil {
		return nil
	}
	if l.reason == closedAtOnce && l.kept == 0 {
		// There was nothing to replay. Some proxies close watches on which nothing
		// happens.
		return nil
	}
	to := event.Position{Epoch: l.to.Epoch, Version: replayFrom(l.to), Time: l.to.Time}
	if l.newest != 0 {
		to.Time = event.Earlier(time.Unix(l.newest, 0), l.w.clock.now())
	}
	gap := event.Gap{
		Source: l.w.namespace, Namespace: l.w.ownNamespace, Sink: l.sink,
		From: l.from, To: to, Cause: l.cause, MissedAtLeast: l.missed,
	}
	if l.reason == stalled {
		// It has not ended. More is missed until it has.
		gap.To = event.Position{Time: gap.To.Time}
		l.w.openGap = &gap
	}
	l.w.asDeclared(&gap)
	l.w.metrics.gaps[l.cause].Inc()
	l.log.Warn("events may have been missed", "cause", gap.Cause, "from", gap.From, "to", gap.To, "missed_at_least", gap.MissedAtLeast)
	l.w.declared(gap)
	rec := event.NewGap(gap)
	rec.Position = event.Position{} // put says where: at the beginning of this list
	return l.w.put(ctx, rec, nil, rec.Event.Size())
}

// asDeclared makes a gap that was declared before, perhaps by another replica and
// to another sink, say the same again. What a list shows of it changes with time,
// and is less where a part of it was taken in already.
func (w *Watcher) asDeclared(g *event.Gap) {
	for _, known := range w.gaps {
		if known.Source == g.Source && known.From.String() == g.From.String() && known.To.String() == g.To.String() {
			known.Sink = g.Sink
			*g = known
			return
		}
	}
}

// declared keeps a gap in mind, in place of the same one without an end.
func (w *Watcher) declared(g event.Gap) {
	if w.gaps = slices.DeleteFunc(w.gaps, g.Covers); !slices.Contains(w.gaps, g) {
		w.gaps = append(w.gaps, g)
	}
	if w.gap != nil {
		w.gap(g)
	}
}

// end moves the position to where the list ends.
func (l *listing) end() {
	last, _ := l.w.hand.at()
	if last.Time.After(l.to.Time) {
		l.to.Time = last.Time
	}
	l.w.hand.advance(last, l.w.ours(event.Record{Position: l.to, To: l.sink}))
	l.w.hand.prove()
}

// put hands a record over, however long that takes. There must be no open
// connection meanwhile.
func (w *Watcher) put(ctx context.Context, rec event.Record, in *event.Room, size int) error {
	for {
		err := w.hand.put(ctx, w.ours(rec), in, size, turnEvery)
		if err != errBlocked {
			return err
		}
		w.health.turned()
	}
}
