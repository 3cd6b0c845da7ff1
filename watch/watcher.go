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

	// Behind are the sinks that stand before Start. The watch begins at the least
	// position that the API server can still replay from; from there on, records
	// are for all sinks, and one that stands further ahead has to leave out what it
	// has. A sink for which that is too late is caught up from a list, with a gap
	// record of its own. The others are not told of either.
	Behind map[string]event.Position

	// Why says in the log where Start comes from, as in "journal"; may be empty.
	Why string

	// Out takes records over. Once it returns nil, they are never read again. It
	// blocks while there is no room for them, and returns soon after its context
	// ended. It is called by one goroutine at a time. Until it returns, slice and
	// Events are its own to change; it keeps neither, nor any of their text, the
	// memory of which is then used for others.
	Out func(context.Context, []event.Record) error

	// GroupsApart is the time from one call of Out to the next, unless there is much
	// for it: on a watch records come one by one, and each call may be costly.
	GroupsApart time.Duration

	// Gaps were declared before. One of them that has to be declared again says
	// the same as then.
	Gaps []event.Gap

	// Gap is told of every gap before its record is handed to Out; may be nil. It is
	// called by the goroutine that reads.
	Gap func(event.Gap)

	// OwnNamespace is that of the Events which tell of gaps.
	OwnNamespace string

	// SpoolDir is where a list is sorted; if empty, it is sorted in memory. Past
	// SpoolMax bytes (compressed; default 32 MiB) the order is given up.
	SpoolDir string
	SpoolMax int64

	Logger  *slog.Logger
	Metrics *Metrics // may be nil
}

// Watcher reads the Events of one source.
type Watcher struct {
	client       *rest.RESTClient
	namespace    string
	ownNamespace string
	spoolDir     string
	spoolMax     int64
	why          string
	gap          func(event.Gap)
	gaps         []event.Gap // that were declared
	log          *slog.Logger
	metrics      sourceMetrics

	hand   *handover
	health health
	clock  serverClock

	emitted, skipped, undecoded atomic.Int64 // states, since the start

	// Of the loop alone:
	uidDenied time.Time // when the uid of kube-system could not be read; zero: it can
	strikes   int       // watches in a row that brought nothing
	struckAt  uint64    // the version they were opened at
	lineup
	stallState
}

// New returns a Watcher that begins when Run is called.
func New(o Options) *Watcher {
	w := &Watcher{
		client:       o.Client,
		namespace:    o.Namespace,
		ownNamespace: o.OwnNamespace,
		spoolDir:     o.SpoolDir,
		spoolMax:     o.SpoolMax,
		why:          o.Why,
		gap:          o.Gap,
		gaps:         slices.Clone(o.Gaps),
		log:          o.Logger,
		metrics:      o.Metrics.forSource(o.Namespace),
		lineup:       lineup{start: o.Start, behind: maps.Clone(o.Behind)},
	}
	w.hand = newHandover(o.Start, o.Out, w.count)
	w.hand.apart = o.GroupsApart
	if w.spoolMax == 0 {
		w.spoolMax = memorySpool
	}
	if w.namespace != "" {
		w.log = w.log.With("source", w.namespace)
	}
	w.health.gauge = w.metrics.contact
	w.health.turned()
	w.resumeStall()
	return w
}

// Position is how far records for all sinks were taken over by Out. While a sink
// stands behind, that can be before Start.
func (w *Watcher) Position() event.Position {
	w.hand.mu.Lock()
	defer w.hand.mu.Unlock()
	return w.hand.accepted
}

// count is told how many states were taken over.
func (w *Watcher) count(states int) {
	w.emitted.Add(int64(states))
	w.metrics.events.Add(float64(states))
}

// Run reads until ctx ends, when it returns nil, or until Out fails, when it
// returns that error. Nothing else ends it: whatever goes wrong with the API
// server is waited for. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	args := []any{"from", w.start}
	if w.why != "" {
		args = append(args, "why", w.why)
	}
	if len(w.behind) > 0 {
		args = append(args, "behind", w.lineup.String())
	}
	w.log.Info("reading events", args...)
	defer func() {
		w.log.Info("stopped reading events", "at", w.Position(), "emitted", w.emitted.Load(), "skipped_as_seen", w.skipped.Load())
	}()
	group, ctx := errgroup.WithContext(withClock(ctx, &w.clock))
	group.Go(func() error { return w.hand.run(ctx) })
	group.Go(func() error {
		w.follow(ctx)
		return nil
	})
	return group.Wait()
}

// follow takes the source from its position on: by a list where one is due, and
// by one watch after the other.
func (w *Watcher) follow(ctx context.Context) {
	var due *relist  // a list, if one is due
	checked := false // the position has just been seen to mean something
	for ctx.Err() == nil {
		w.health.turned()
		if due == nil && !checked {
			var err error
			if due, err = w.prepare(ctx); err != nil {
				w.retry(ctx, "check position", err)
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
			due = w.listDue()
		}
		if due != nil {
			err := w.list(ctx, *due)
			due, checked = nil, err == nil
			if expired(err) {
				// An interrupted list cannot be read again as it was.
				due = w.relistFor(tooOld)
			} else if err != nil {
				w.retry(ctx, "list", err)
			}
			continue
		}
		checked = false
		w.probe(ctx)
		due = w.ended(ctx, w.watch(ctx))
	}
}

// How many watches from one version may fail before a list takes their place.
const maxStrikes = 3

// ended deals with the end of a watch: it waits where that is called for, and
// returns the list that is due, if any. Otherwise the next watch resumes at the
// position.
func (w *Watcher) ended(ctx context.Context, err error) *relist {
	if ctx.Err() != nil {
		return nil
	}
	var silent errSilent
	switch {
	case err == nil, errors.Is(err, errOverdue):
		// The time that was asked for is over, or the API server is shutting down.
		// Should it be gone, the check before the next watch finds out.
		return w.endedWell(err)

	case w.failedFor(err):
		return w.stall()

	case expired(err) && !w.stalled():
		// Compacted. It comes as the answer 410, or, usually, after the answer 200 as
		// an ERROR frame.
		return w.relistFor(tooOld)

	case status(err) == http.StatusInternalServerError:
		// At exactly the version up to which etcd was compacted, the API server
		// cannot tell what the next state replaced, and answers 500 (PrevKv=nil)
		// until the next compaction:
		// https://github.com/kubernetes/apiserver/blob/v0.36.3/pkg/storage/etcd3/event.go
		// If it were etcd that failed, the check before the watch would have too.
		if w.struck() {
			if due := w.keepsFailing(ctx, watchFailing); due != nil {
				return due
			}
		}

	case errors.Is(err, errGarbled):
		// Read again, unless it was no accident.
		if w.struck() {
			if due := w.keepsFailing(ctx, watchFailing); due != nil {
				return due
			}
		}

	case errors.Is(err, errClosedAtOnce):
		// Something between us and the API server, or one behind a load balancer that
		// knows nothing of the version.
		if w.struck() {
			if due := w.keepsFailing(ctx, closedAtOnce); due != nil {
				return due
			}
		}

	case errors.As(err, &silent):
		// Nothing was missed: the next watch replays it.
		w.suspect(silent.shown)
		return nil

	case errors.Is(err, errBlocked):
		w.waitForRoom(ctx)
		return nil

	case errors.Is(err, errWentBack):
		// The check before the next watch finds out what happened.

	case denied(err):
		// Someone has to grant a permission; retry says which.

	default:
		// The connection was lost or refused, the API server did not answer in time,
		// or has too much to do (429).
	}
	w.retry(ctx, "watch", err)
	return nil
}

// relistFor returns the list in the present epoch that is due because no watch
// can begin at the position. It is none while there are sinks further ahead.
func (w *Watcher) relistFor(r reason) *relist {
	pos, _ := w.hand.at()
	w.strikes = 0
	if w.rejoin(pos) {
		return nil
	}
	return &relist{reason: r, epoch: pos.Epoch}
}

// struck counts a watch that came to nothing, and reports whether there were too
// many of them at this version.
func (w *Watcher) struck() bool {
	pos, _ := w.hand.at()
	if pos.Version != w.struckAt {
		w.struckAt, w.strikes = pos.Version, 0
	}
	w.strikes++
	return w.strikes >= maxStrikes
}

// waitForRoom waits until records are taken again. Meanwhile there is no watch.
func (w *Watcher) waitForRoom(ctx context.Context) {
	start := time.Now()
	w.log.Warn("records are not taken, watch dropped until they are")
	for w.hand.wait(ctx, turnEvery) == errBlocked {
		w.health.turned()
	}
	if ctx.Err() == nil {
		w.log.Info("records are taken again", "after", time.Since(start).Round(time.Millisecond))
	}
}

// undecodable counts a state that could not be read. It is lost: reading it
// again would not help.
func (w *Watcher) undecodable(err error) {
	w.metrics.undecodable.Inc()
	level := slog.LevelDebug
	if w.undecoded.Add(1) == 1 {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "event skipped, for it cannot be decoded", "err", err)
}
