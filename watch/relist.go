package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/extsort"
)

// Page lengths. Most lists fit into the first page. The other pages of a long list are large,
// because a continue token lasts as long as its version, 5 minutes by default, and each page
// costs the API server as much as any other request.
const (
	firstPage = 500
	nextPages = 10_000
)

// memorySortMax limits the sorter's memory if its file fails.
const memorySortMax = 32 << 20

// relistReason is the reason for a list.
type relistReason string

const (
	reasonFirst        relistReason = "first"          // the source has no position
	reasonInterrupted  relistReason = "interrupted"    // the last list was not emitted completely
	reasonTooOld       relistReason = "too_old"        // the API server cannot replay from the position
	reasonWatchFailing relistReason = "watch_failing"  // watches from the position fail
	reasonClosedAtOnce relistReason = "closed_at_once" // watches from the position are closed at once
	reasonRestored     relistReason = "restored"       // etcd was restored to an earlier state
	reasonOtherCluster relistReason = "other_cluster"  // another cluster answers
	reasonStalled      relistReason = "stalled"        // watches deliver nothing
	reasonSinkBehind   relistReason = "behind"         // no watch can begin at the position of a sink
)

// gapCauses has the cause of the gap that a list leaves, by its reason; empty: no gap. For
// reasonSinkBehind, catchUp replaces it.
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
	epoch  event.Epoch // of the list
}

// listing is a list in progress: fetched page by page into the sorter, then emitted in version
// order. Pages are in the order of keys; emitted in this order, Loki would reject entries that
// are an hour older than their predecessors.
type listing struct {
	w   *Watcher
	log *slog.Logger
	relist
	sink  string         // the only sink it is for; empty: all
	cause event.Cause    // of the gap that it leaves; empty: none
	from  event.Position // of the source before the list
	start event.Position // from, in the epoch of the list
	to    event.Position // of the source after the list; zero until the first page, if that is the list's version
	asOf  uint64         // the version to list at; 0: the newest

	openGap *event.Gap // a known gap that contains the list; nil: none

	sorter   extsort.Sorter
	stripped []byte // the state that is being added to the sorter
	counts
	parts   int // emitted so far
	emitted int
}

// counts of the items of a list or page.
type counts struct {
	items       int
	alreadySeen int // not newer than the position
	undecodable int
	kept        int
	missed      int   // states that must have been overwritten inside the gap
	newestWrite int64 // of the kept states, in seconds since 1970
}

func (c *counts) add(o counts) {
	c.items += o.items
	c.alreadySeen += o.alreadySeen
	c.undecodable += o.undecodable
	c.kept += o.kept
	c.missed += o.missed
	c.newestWrite = max(c.newestWrite, o.newestWrite)
}

func (w *Watcher) newListing(due relist, from event.Position) *listing {
	l := &listing{
		w: w, log: w.log, relist: due, cause: gapCauses[due.reason],
		from: from, start: from, sorter: extsort.Sorter{Dir: w.sortDir},
	}
	if due.reason == reasonFirst || !sameEpoch(from.Epoch, due.epoch) {
		// Versions of different epochs do not compare.
		l.start = event.Position{}
	}
	l.start.Epoch = due.epoch
	return l
}

// run reads and emits the list. Its errors are documented at Watcher.list.
func (l *listing) run(ctx context.Context) error {
	w := l.w
	defer l.sorter.Reset()
	began := time.Now()
	if err := l.fetch(ctx); err != nil {
		return err
	}
	if err := l.emit(ctx, true); err != nil {
		return err
	}
	l.advance()
	w.metrics.relists[l.reason].Inc()
	w.metrics.seen.Add(float64(l.alreadySeen))
	w.skippedCount.Add(int64(l.alreadySeen))
	level := slog.LevelInfo
	if l.openGap != nil {
		level = slog.LevelDebug // one of many
	}
	l.log.Log(ctx, level, "listed events", "reason", l.reason, "from", l.from, "to", l.to,
		"listed", l.items, "emitted", l.emitted, "already_seen", l.alreadySeen, "undecodable", l.undecodable,
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}

// fetch reads all pages into the sorter.
func (l *listing) fetch(ctx context.Context) error {
	w := l.w
	token, limit := "", firstPage
	for ctx.Err() == nil {
		p, err := l.fetchPage(ctx, token, limit)
		switch code := status(err); {
		case err == nil:
			w.succeeded()
			token, limit = p.continueToken, nextPages
			if err := l.emitIfFull(ctx); err != nil {
				return err
			}
			if token == "" {
				return nil
			}

		case errors.Is(err, errHistoryRewound):
			return err

		case apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
			// etcd was restored during the list.
			return fmt.Errorf("%w: %w", errHistoryRewound, err)

		case code == http.StatusGone && l.asOf != 0 && token == "":
			if l.reason == reasonInterrupted {
				return err
			}
			// List the newest version instead: the gap is declared anyway.
			l.asOf, l.counts = 0, counts{}

		case code == http.StatusGone, code == http.StatusBadRequest && token != "":
			// The version was compacted during the list, or another API server answers than the
			// one that issued the token. The error may have a token to continue at the newest
			// version; states newer than the list are left to the watch. Without one, the list
			// starts again. The sorter keeps the fetched states: it drops duplicate versions.
			w.backOff(ctx, "continue list", err)
			if token = continueToken(err); token == "" {
				limit, l.counts = firstPage, counts{}
			}

		default:
			// This includes an interrupted page, which is fetched again from its beginning.
			w.backOff(ctx, "list", err)
		}
	}
	return context.Cause(ctx)
}

// fetchPage reads one page into the sorter.
func (l *listing) fetchPage(ctx context.Context, token string, limit int) (pageInfo, error) {
	req := l.w.listPage(token, limit)
	if l.asOf != 0 && token == "" {
		listAsOf(req, l.asOf)
	}
	var c counts
	var clock time.Time // at the first item
	p, err := l.w.readPage(ctx, req, func(item []byte) error {
		if clock.IsZero() {
			clock = l.w.clock.now()
		}
		l.addItem(item, clock, &c)
		return nil
	})
	if err != nil {
		return p, err
	}
	if p.version < max(watchVersion(l.start), watchVersion(l.to)) {
		return p, fmt.Errorf("%w: list at version %d", errHistoryRewound, p.version)
	}
	if l.to.IsZero() {
		l.to = event.Position{Epoch: l.epoch, Version: p.version}
	}
	l.counts.add(c)
	return p, nil
}

// addItem adds an item to the sorter, unless the source has it already or the watch will deliver
// it.
func (l *listing) addItem(item []byte, clock time.Time, c *counts) {
	if c.items++; c.items%1000 == 0 {
		l.w.health.heartbeat() // a page can take minutes
	}
	m, err := parseMeta(item, clock)
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
		// An Event that was created after the last state before the gap, and written again
		// since: its first state is missing. The number of other missing states is unknown.
		if !l.from.Time.IsZero() && m.created > l.from.Time.Unix() && m.written > m.created {
			c.missed++
		}
		l.stripped = stripManagedFields(l.stripped[:0], item)
		l.sorter.Add(m.version, l.stripped)
	}
}

// emitIfFull emits the content of the sorter if it has reached its limit, although lower versions
// may follow.
func (l *listing) emitIfFull(ctx context.Context) error {
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
	l.log.Log(ctx, level, "list exceeds the space for sorting; its events are emitted in several sorted parts", args...)
	l.w.metrics.overflows.Inc()
	return l.emit(ctx, false)
}

// emit adds the content of the sorter to the batcher, after the gap record.
func (l *listing) emit(ctx context.Context, last bool) error {
	if l.parts == 0 {
		start := l.start
		start.ListVersion = watchVersion(l.to)
		l.w.batcher.resetPosition(start)
		if err := l.declareGap(ctx); err != nil {
			return err
		}
	}
	l.parts++
	clock := l.w.clock.now()
	return l.sorter.Drain(func(_ uint64, state []byte) error {
		buffer := l.w.batcher.newBuffer()
		e, err := buffer.DecodeAt(state, clock)
		if err != nil {
			l.w.batcher.recycle(buffer)
			l.undecodable++
			l.w.countUndecodable(err)
			return nil
		}
		rec := event.NewAt(e, clock)
		if !last {
			rec.Position = event.Position{} // lower versions may follow: the position stays
		}
		rec.OnlySink = l.sink
		l.emitted++
		return l.w.batcher.addWaiting(ctx, rec, buffer, len(state), l.w.health.heartbeat)
	})
}

// advance moves the position to the end of the list.
func (l *listing) advance() {
	b := l.w.batcher
	last := b.at()
	if last.Time.After(l.to.Time) {
		l.to.Time = last.Time
	}
	b.advance(last, l.to, l.sink)
	b.markProven()
}
