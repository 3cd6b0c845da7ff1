// Package watch reads every state of every Event of a Kubernetes API server, each once, in
// version order, from the position where it stopped, in memory that does not grow with the
// number of Events. Where states may have been missed, because the API server can no longer
// replay them, a gap record precedes the records that are read again.
//
// # Life of a watch
//
// The loop checks that the position is part of the API server's history, aligns sinks that are
// behind, and opens a watch. The watch's records go to the batcher, which passes them to
// Options.Handle. While the watch is silent, a monitor lists beside it. When the watch ends,
// its error decides: reopen it at the position, back off, suspect a stall, or relist. A relist
// declares a gap, emits the listed states in version order, and the next watch continues from
// its version. The files, in this order; calls go down:
//
//	watcher.go    options, and the loop: check, list or watch, handle the end of the watch
//	session.go    one watch, from the request to its end
//	stall.go      watches that are silent while lists show newer Events
//	liveness.go   lists beside a silent watch
//	catchup.go    sinks at different positions
//	relist.go     a list: fetch, sort, emit
//	gap.go        gap records
//	history.go    restored etcds and other clusters
//	batcher.go    the position, and records on their way to Options.Handle
//	backoff.go    pauses between attempts
//	list.go, frames.go, meta.go, protobuf.go
//	              parsing responses without decoding them whole
//	client.go, clock.go, health.go, metrics.go, errors.go
//
// # Why not an informer
//
// A SharedInformer keeps every Event in memory, passes them on through an unbounded ring, so
// that a slow consumer cannot slow down the watch, and always begins with a list. Its
// Reflector alone moves on when a state could not be stored. tools/watch.RetryWatcher begins
// at a version, but sets no timeout, detects no stall and retries permanent errors for ever.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

// Options of a Watcher.
type Options struct {
	Client    *rest.RESTClient // made by NewClient
	Namespace string           // the source; empty: all namespaces

	// Start is the resume point of all sinks that SinkPositions does not name. If it is zero,
	// all Events that the API server holds are read, for all sinks.
	Start event.Position

	// SinkPositions are the positions of sinks that are behind Start. The watch begins at the
	// lowest of them that the API server can replay. From there on, records are for all sinks,
	// and a sink that is further ahead must skip the records that it has. A sink with an older
	// position is caught up from a list, with a gap record for this sink alone.
	SinkPositions map[string]event.Position

	// StartReason is the origin of Start in the log, such as "journal". May be empty.
	StartReason string

	// Handle stores records. Once it returns nil, they are never read again. It blocks while
	// the journal is full, and returns soon after ctx is done. Calls do not overlap. During the
	// call, Handle may change the slice and the Events. It keeps neither of them, nor any
	// string of the Events: their memory is reused.
	Handle func(ctx context.Context, records []event.Record) error

	// BatchInterval is the time between two calls of Handle, unless a batch is full earlier.
	// Records of a watch arrive one by one, and each call may be costly.
	BatchInterval time.Duration

	// KnownGaps were declared before. A gap that is declared again equals the known one.
	KnownGaps []event.Gap

	// OnGap is called with every gap before Handle gets its record. May be nil.
	OnGap func(event.Gap)

	// OwnNamespace is the namespace of the gap records' Events.
	OwnNamespace string

	// SortDir is the directory in which a list is sorted; if empty, it is sorted in memory.
	// If a list has more than SortMaxBytes (compressed; default 32 MiB), it is emitted in
	// several parts, each sorted by itself.
	SortDir      string
	SortMaxBytes int64

	Logger  *slog.Logger
	Metrics *Metrics // may be nil
}

// Watcher reads the Events of one source.
type Watcher struct {
	client       *rest.RESTClient
	namespace    string
	ownNamespace string
	sortDir      string
	sortMaxBytes int64
	startReason  string
	onGap        func(event.Gap)
	log          *slog.Logger
	metrics      sourceMetrics

	batcher *batcher
	health  health
	clock   serverClock

	emittedCount, skippedCount, undecodedCount atomic.Int64 // states, since the start

	// Used by the loop only:
	knownGaps     event.GapSet
	uidDeniedAt   time.Time // when reading the uid of kube-system was denied; zero: allowed
	failedWatches int       // consecutive watches that failed at failedVersion
	failedVersion uint64
	sinkStarts
	stallState
}

// New returns a Watcher, which Run starts.
func New(o Options) *Watcher {
	w := &Watcher{
		client:       o.Client,
		namespace:    o.Namespace,
		ownNamespace: o.OwnNamespace,
		sortDir:      o.SortDir,
		sortMaxBytes: o.SortMaxBytes,
		startReason:  o.StartReason,
		onGap:        o.OnGap,
		knownGaps:    slices.Clone(o.KnownGaps),
		log:          o.Logger,
		metrics:      o.Metrics.forSource(o.Namespace),
		sinkStarts:   sinkStarts{start: o.Start, positions: maps.Clone(o.SinkPositions)},
	}
	w.batcher = newBatcher(o.Namespace, o.Start, o.Handle, w.countEmitted)
	w.batcher.interval = o.BatchInterval
	if w.sortMaxBytes == 0 {
		w.sortMaxBytes = memorySortMax
	}
	if w.namespace != "" {
		w.log = w.log.With("source", w.namespace)
	}
	w.health.gauge = w.metrics.contact
	w.health.heartbeat()
	w.resumeStall()
	return w
}

// Position returns the position of the last record for all sinks that Handle has stored. While
// a sink is behind, it can be lower than Start.
func (w *Watcher) Position() event.Position {
	w.batcher.mu.Lock()
	defer w.batcher.mu.Unlock()
	return w.batcher.stored
}

// LastHeartbeat returns when the loop last made progress. It does so at least every five
// minutes, also while it waits for a retry, for space in the journal or for an open watch.
func (w *Watcher) LastHeartbeat() time.Time {
	_, added := w.batcher.positionAndTime()
	if beat := w.health.lastHeartbeat(); beat.After(added) {
		return beat
	}
	return added
}

// LastContact returns when the API server last answered successfully; zero: never.
func (w *Watcher) LastContact() time.Time { return w.health.lastContact() }

// Ready returns why Events are not being read, or nil. A missing permission and a stall are
// reported at once, other failures after five minutes.
func (w *Watcher) Ready() error { return w.health.ready() }

// Run reads until ctx is done and then returns nil, or until Handle fails, and then returns
// its error. Failures of the API server are retried for ever. Run is called once.
func (w *Watcher) Run(ctx context.Context) error {
	args := []any{"from", w.start}
	if w.startReason != "" {
		args = append(args, "reason", w.startReason)
	}
	if len(w.positions) > 0 {
		args = append(args, "behind", w.sinkStarts.String())
	}
	w.log.Info("reading events", args...)
	defer func() {
		w.log.Info("stopped reading events", "at", w.Position(), "emitted", w.emittedCount.Load(), "already_seen", w.skippedCount.Load())
	}()
	group, ctx := errgroup.WithContext(withClock(ctx, &w.clock))
	group.Go(func() error { return w.batcher.run(ctx) })
	group.Go(func() error {
		w.loop(ctx)
		return nil
	})
	return group.Wait()
}

// loop reads from the position on: a list where one is due, else one watch after the other.
func (w *Watcher) loop(ctx context.Context) {
	var due *relist  // the next list, if one is due
	checked := false // the last list has confirmed the position
	for ctx.Err() == nil {
		w.health.heartbeat()
		if due == nil && !checked {
			var err error
			if due, err = w.prepare(ctx); err != nil {
				w.backOff(ctx, "check position", err)
				continue
			}
			if due != nil && !sameEpoch(due.epoch, w.batcher.at().Epoch) {
				// The gap of a stall ends with the epoch, and the next epoch begins without
				// a stall.
				if err := w.endStall(ctx, "history of the cluster has changed"); err != nil {
					due = nil // the gap record was not added: check again
					continue
				}
			}
		}
		if due == nil {
			due = w.stallListDue()
		}
		if due != nil {
			err := w.list(ctx, *due)
			due, checked = nil, err == nil
			if expired(err) {
				// The version of an interrupted list is compacted.
				due = w.relistOrRealign(reasonTooOld)
			} else if err != nil {
				w.backOff(ctx, "list", err)
			}
			continue
		}
		checked = false
		w.listBeforeWatch(ctx)
		due = w.afterWatch(ctx, w.watch(ctx))
	}
}

// prepare does everything that is necessary before a watch can be opened at the position, except
// for a list for all sinks, which it returns.
func (w *Watcher) prepare(ctx context.Context) (*relist, error) {
	due, err := w.checkHistory(ctx)
	if err != nil {
		return nil, err
	}
	if due != nil {
		w.positions = nil // everything is read, for all sinks
		return due, nil
	}
	w.correctTimes()
	if len(w.positions) > 0 && !w.aligned {
		if due, err = w.alignStart(ctx); err != nil || due != nil {
			return due, err
		}
	}
	if pos := w.batcher.at(); pos.ListVersion != 0 {
		return &relist{reason: reasonInterrupted, epoch: pos.Epoch}, nil
	}
	return nil, nil
}

// list reads the list that is due and emits all states that are newer than the position and not
// newer than the list, so that a watch can begin at the list's version. The gap record comes
// first, so that an interruption can neither lose it nor repeat it.
//
// It returns errHistoryRewound, or an error of status 410 if the version of an interrupted list
// is compacted. It retries all other errors.
func (w *Watcher) list(ctx context.Context, due relist) error {
	l := w.newListing(due, w.batcher.at())
	if due.reason == reasonInterrupted {
		// At the same version as before: states that were overwritten since are not missed.
		l.asOf = l.from.ListVersion
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

// maxFailedWatches is how many watches may fail at one version before a list replaces them.
const maxFailedWatches = 3

// afterWatch handles the end of a watch: it waits if necessary, and returns the list that is
// due, if any. Without one, the next watch resumes at the position.
func (w *Watcher) afterWatch(ctx context.Context, err error) *relist {
	if ctx.Err() != nil {
		return nil
	}
	var silent errSilent
	switch {
	case err == nil, errors.Is(err, errOverdue):
		// The timeout has passed, or the API server shuts down. If it is gone, the check
		// before the next watch finds out.
		return w.endedCleanly(err)

	case w.failedTooLong(err):
		return w.beginStall()

	case expired(err) && !w.stalled():
		// Compacted: the status 410, or, usually, the status 200 and an ERROR frame.
		return w.relistOrRealign(reasonTooOld)

	case status(err) == http.StatusInternalServerError, errors.Is(err, errInvalidFrame):
		// At exactly the compacted version the API server cannot find the state before the
		// next one, and answers 500 (PrevKv=nil) until the next compaction:
		// https://github.com/kubernetes/apiserver/blob/v0.36.3/pkg/storage/etcd3/event.go
		// If etcd itself failed, the check before the watch would have failed too.
		if w.tooManyFailures() {
			if due := w.replaceWatches(ctx, reasonWatchFailing); due != nil {
				return due
			}
		}

	case errors.Is(err, errClosedAtOnce):
		// A proxy, or an API server behind a load balancer that does not know the version.
		if w.tooManyFailures() {
			if due := w.replaceWatches(ctx, reasonClosedAtOnce); due != nil {
				return due
			}
		}

	case errors.As(err, &silent):
		// Nothing is missed: the next watch replays it.
		w.suspect(silent.listed)
		return nil

	case errors.Is(err, errBlocked):
		w.waitForJournal(ctx)
		return nil

	default:
		// Permission denied; connection lost or refused; no response in time; too many
		// requests; history rewound, which the check before the next watch examines.
	}
	w.backOff(ctx, "watch", err)
	return nil
}

// tooManyFailures counts a failed watch, and reports whether maxFailedWatches have failed at
// this version.
func (w *Watcher) tooManyFailures() bool {
	if pos := w.batcher.at(); pos.Version != w.failedVersion {
		w.failedVersion, w.failedWatches = pos.Version, 0
	}
	w.failedWatches++
	return w.failedWatches >= maxFailedWatches
}

// waitForJournal waits, without a watch, until Handle accepts records again.
func (w *Watcher) waitForJournal(ctx context.Context) {
	start := time.Now()
	w.log.Warn("journal accepts no records; watch closed until it does")
	for errors.Is(w.batcher.waitEmpty(ctx, heartbeatInterval), errBlocked) {
		w.health.heartbeat()
	}
	if ctx.Err() == nil {
		w.log.Info("journal accepts records again", "after", time.Since(start).Round(time.Millisecond))
	}
}
