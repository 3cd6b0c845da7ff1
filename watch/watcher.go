// Package watch reads every state of every Event from a Kubernetes API server:
// each once, in the order of their versions, from where it was left, in memory
// that does not grow with the number of Events.
//
// What it cannot promise it says: where states may have been missed, because
// the API server could not replay them any more, a gap record stands in front of
// what was read again.
//
// # Why not an informer
//
// A SharedInformer keeps every Event in memory, hands them over through a ring
// without bound, so that a slow consumer can never slow down the watch, and
// always begins with a list. Its Reflector alone goes on when a state could not
// be stored. tools/watch.RetryWatcher begins at a version, but sets no timeout,
// notices no stall and repeats for ever what cannot succeed.
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
	Namespace string           // whose Events to read; empty: all

	// Start is how far the source has been taken for all sinks but those that
	// Behind names. If it is zero, everything that the API server holds is read,
	// for all.
	Start event.Position

	// SinkPositions are the sinks that stand before Start. The watch begins at the least
	// position that the API server can still replay from; from there on, records
	// are for all sinks, and one that stands further ahead has to leave out what it
	// has. A sink for which that is too late is caught up from a list, with a gap
	// record of its own. The others are not told of either.
	SinkPositions map[string]event.Position

	// StartReason says in the log where Start comes from, as in "journal"; may be empty.
	StartReason string

	// Handle takes records over. Once it returns nil, they are never read again. It
	// blocks while there is no room for them, and returns soon after its context
	// ended. It is called by one goroutine at a time. Until it returns, slice and
	// Events are its own to change; it keeps neither, nor any of their text, the
	// memory of which is then used for others.
	Handle func(context.Context, []event.Record) error

	// BatchInterval is the time from one call of Out to the next, unless there is much
	// for it: on a watch records come one by one, and each call may be costly.
	BatchInterval time.Duration

	// KnownGaps were declared before. One of them that has to be declared again says
	// the same as then.
	KnownGaps []event.Gap

	// OnGap is told of every gap before its record is handed to Out; may be nil. It is
	// called by the goroutine that reads.
	OnGap func(event.Gap)

	// OwnNamespace is that of the Events which tell of gaps.
	OwnNamespace string

	// SortDir is where a list is sorted; if empty, it is sorted in memory. Past
	// SpoolMax bytes (compressed; default 32 MiB) the order is given up.
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
	knownGaps    []event.Gap // that were declared
	log          *slog.Logger
	metrics      sourceMetrics

	batcher *batcher
	health  health
	clock   serverClock

	emittedCount, skippedCount, undecodedCount atomic.Int64 // states, since the start

	// Of the loop alone:
	uidDeniedAt   time.Time // when the uid of kube-system could not be read; zero: it can
	failedWatches int       // watches in a row that brought nothing
	failedVersion uint64    // the version they were opened at
	sinkStarts
	stallState
}

// New returns a Watcher that begins when Run is called.
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
	w.batcher = newBatcher(o.Start, o.Handle, w.countAccepted)
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

// Position is how far records for all sinks were taken over by Out. While a sink
// stands behind, that can be before Start.
func (w *Watcher) Position() event.Position {
	w.batcher.mu.Lock()
	defer w.batcher.mu.Unlock()
	return w.batcher.accepted
}

// countAccepted is told how many states were taken over.
func (w *Watcher) countAccepted(states int) {
	w.emittedCount.Add(int64(states))
	w.metrics.events.Add(float64(states))
}

// Run reads until ctx ends, when it returns nil, or until Out fails, when it
// returns that error. Nothing else ends it: whatever goes wrong with the API
// server is waited for. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	args := []any{"from", w.start}
	if w.startReason != "" {
		args = append(args, "why", w.startReason)
	}
	if len(w.positions) > 0 {
		args = append(args, "behind", w.sinkStarts.String())
	}
	w.log.Info("reading events", args...)
	defer func() {
		w.log.Info("stopped reading events", "at", w.Position(), "emitted", w.emittedCount.Load(), "skipped_as_seen", w.skippedCount.Load())
	}()
	group, ctx := errgroup.WithContext(withClock(ctx, &w.clock))
	group.Go(func() error { return w.batcher.run(ctx) })
	group.Go(func() error {
		w.loop(ctx)
		return nil
	})
	return group.Wait()
}

// loop takes the source from its position on: by a list where one is due, and
// by one watch after the other.
func (w *Watcher) loop(ctx context.Context) {
	var due *relist  // a list, if one is due
	checked := false // the position has just been seen to mean something
	for ctx.Err() == nil {
		w.health.heartbeat()
		if due == nil && !checked {
			var err error
			if due, err = w.prepare(ctx); err != nil {
				w.backOff(ctx, "check position", err)
				continue
			}
			if due != nil && !sameEpoch(due.epoch, w.epoch()) {
				// The stretch of a stall ends with the epoch. Whether watches bring
				// something in the next one is to be seen.
				if err := w.endStall(ctx, "no longer reading by lists: the history of the cluster has changed"); err != nil {
					due = nil // the records are not taken: check again
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
				// An interrupted list cannot be read again as it was.
				due = w.relistFor(reasonTooOld)
			} else if err != nil {
				w.backOff(ctx, "list", err)
			}
			continue
		}
		checked = false
		w.probeBeforeWatch(ctx)
		due = w.afterWatch(ctx, w.watch(ctx))
	}
}

// How many watches from one version may fail before a list takes their place.
const maxFailedWatches = 3

// afterWatch deals with the end of a watch: it waits where that is called for, and
// returns the list that is due, if any. Otherwise the next watch resumes at the
// position.
func (w *Watcher) afterWatch(ctx context.Context, err error) *relist {
	if ctx.Err() != nil {
		return nil
	}
	var silent errSilent
	switch {
	case err == nil, errors.Is(err, errOverdue):
		// The time that was asked for is over, or the API server is shutting down.
		// Should it be gone, the check before the next watch finds out.
		return w.endedCleanly(err)

	case w.failedTooLong(err):
		return w.beginStall()

	case expired(err) && !w.stalled():
		// Compacted. It comes as the answer 410, or, usually, after the answer 200 as
		// an ERROR frame.
		return w.relistFor(reasonTooOld)

	case status(err) == http.StatusInternalServerError:
		// At exactly the version up to which etcd was compacted, the API server
		// cannot tell what the next state replaced, and answers 500 (PrevKv=nil)
		// until the next compaction:
		// https://github.com/kubernetes/apiserver/blob/v0.36.3/pkg/storage/etcd3/event.go
		// If it were etcd that failed, the check before the watch would have too.
		if w.tooManyFailures() {
			if due := w.replaceWatches(ctx, reasonWatchFailing); due != nil {
				return due
			}
		}

	case errors.Is(err, errInvalidFrame):
		// Read again, unless it was no accident.
		if w.tooManyFailures() {
			if due := w.replaceWatches(ctx, reasonWatchFailing); due != nil {
				return due
			}
		}

	case errors.Is(err, errClosedAtOnce):
		// Something between us and the API server, or one behind a load balancer that
		// knows nothing of the version.
		if w.tooManyFailures() {
			if due := w.replaceWatches(ctx, reasonClosedAtOnce); due != nil {
				return due
			}
		}

	case errors.As(err, &silent):
		// Nothing was missed: the next watch replays it.
		w.suspect(silent.listed)
		return nil

	case errors.Is(err, errBlocked):
		w.waitUnblocked(ctx)
		return nil

	case errors.Is(err, errHistoryRewound):
		// The check before the next watch finds out what happened.

	case denied(err):
		// Someone has to grant a permission; retry says which.

	default:
		// The connection was lost or refused, the API server did not answer in time,
		// or has too much to do (429).
	}
	w.backOff(ctx, "watch", err)
	return nil
}

// relistFor returns the list in the present epoch that is due because no watch
// can begin at the position. It is none while there are sinks further ahead.
func (w *Watcher) relistFor(r relistReason) *relist {
	pos, _ := w.batcher.positionAndTime()
	w.failedWatches = 0
	if w.realign(pos) {
		return nil
	}
	return &relist{reason: r, epoch: pos.Epoch}
}

// tooManyFailures counts a watch that came to nothing, and reports whether there were too
// many of them at this version.
func (w *Watcher) tooManyFailures() bool {
	pos, _ := w.batcher.positionAndTime()
	if pos.Version != w.failedVersion {
		w.failedVersion, w.failedWatches = pos.Version, 0
	}
	w.failedWatches++
	return w.failedWatches >= maxFailedWatches
}

// waitUnblocked waits until records are taken again. Meanwhile there is no watch.
func (w *Watcher) waitUnblocked(ctx context.Context) {
	start := time.Now()
	w.log.Warn("records are not taken, watch dropped until they are")
	for w.batcher.waitEmpty(ctx, heartbeatInterval) == errBlocked {
		w.health.heartbeat()
	}
	if ctx.Err() == nil {
		w.log.Info("records are taken again", "after", time.Since(start).Round(time.Millisecond))
	}
}

// countUndecodable counts a state that could not be read. It is lost: reading it
// again would not help.
func (w *Watcher) countUndecodable(err error) {
	w.metrics.undecodable.Inc()
	level := slog.LevelDebug
	if w.undecodedCount.Add(1) == 1 {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "event skipped, for it cannot be decoded", "err", err)
}
