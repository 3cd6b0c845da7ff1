package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
)

// The API server is asked to end a watch after a random time between these. It
// must come round to the checks before a watch well within the five minutes
// after which etcd is compacted, and many watches should not end together.
const (
	minWatch   = 120 * time.Second
	maxWatch   = 240 * time.Second
	watchGrace = 45 * time.Second // after which a watch that was not ended is dropped
)

// minOpenTime is how long a watch on which nothing comes must have been open before
// it counts as one that works.
const minOpenTime = 5 * time.Second

// closeWhenBlockedFor is how long a watch stays open while its records are not taken.
// The API server buffers without bound for a watch that is not read:
// https://github.com/kubernetes/apiserver/blob/v0.36.3/pkg/storage/etcd3/watcher.go
const closeWhenBlockedFor = time.Minute

// Ways in which a watch ends, beside errors of the connection and those that the
// API server answers with.
var (
	errClosedAtOnce = errors.New("watch closed at once, without an event")
	errOverdue      = errors.New("watch not ended in time by the API server")
)

// watch opens one watch at the position and hands over what it brings until it
// ends. It returns nil if the API server ended it in good order.
func (w *Watcher) watch(ctx context.Context) error {
	pos, _ := w.batcher.positionAndTime()
	w.openedVersion, w.deliveredNewer = pos.Version, false
	length, answer, over := w.watchTimeouts()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, length+over, errOverdue)
	defer stop()

	// Events have no bookmarks today, for the API server does not cache them; one
	// that does would spare us a list in quiet minutes.
	req := w.events().
		Param("watch", "true").
		Param("resourceVersion", strconv.FormatUint(pos.Version, 10)).
		Param("timeoutSeconds", strconv.Itoa(int(length.Seconds()))).
		Param("allowWatchBookmarks", "true")
	asked := time.Now() // a proxy may hold back the headers as well
	in, err := open(ctx, req, answer, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	w.health.contacted()

	if !w.shortWatches {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			w.monitor(ctx, cancel)
		}()
		defer func() {
			cancel(nil)
			<-watched
		}()
	}

	frames := newFrames(in)
	seen, works := pos.Version, false
	var came time.Time // the first version that is newer than the position
	defer func() {
		if !came.IsZero() && time.Since(came) >= minOpenTime {
			w.shortWatches = false // nothing holds back what the watch brings
		}
	}()
	for {
		fr, err := frames.next()
		if err == io.EOF {
			if !works && time.Since(asked) < minOpenTime {
				return errClosedAtOnce
			}
			w.succeeded()
			return nil
		}
		if err != nil {
			return err
		}
		version, err := w.handleFrame(ctx, fr, seen)
		if err != nil {
			var silent errSilent
			if version > seen && (errors.Is(err, errOverdue) || errors.As(err, &silent)) {
				// It has brought something, which is not taken: that is no stall.
				return errBlocked
			}
			return err
		}
		if came.IsZero() && version > seen {
			came, w.deliveredNewer = time.Now(), true
		}
		seen = max(seen, version)
		if works {
			w.health.contacted()
		} else {
			w.succeeded()
			works = true
		}
	}
}

// handleFrame hands over what a frame brings, unless it is not newer than what was
// seen, and returns its version, also if it could not be handed over.
func (w *Watcher) handleFrame(ctx context.Context, fr frame, seen uint64) (uint64, error) {
	switch fr.kind {
	case apiwatch.Added, apiwatch.Modified, apiwatch.Deleted, apiwatch.Bookmark:
	case apiwatch.Error:
		var s metav1.Status
		if err := s.Unmarshal(fr.object); err != nil {
			return 0, fmt.Errorf("%w: status: %w", errInvalidFrame, err)
		}
		return 0, apierrors.FromObject(&s)
	default:
		return 0, fmt.Errorf("%w: type %q", errInvalidFrame, fr.kind)
	}

	if fr.kind == apiwatch.Added || fr.kind == apiwatch.Modified {
		room := w.batcher.newBuffer()
		clock := w.clock.now()
		e, err := room.DecodeAt(fr.object, clock)
		if fr.bad != nil {
			err = fr.bad
		}
		if err == nil {
			rec := event.NewAt(e, clock)
			if version := rec.Position.Version; version > seen {
				if err := w.endStall(ctx, watchesWorkAgain); err != nil {
					w.batcher.recycle(room)
					return version, err
				}
				return version, w.batcher.add(ctx, w.ours(rec), room, len(fr.object), closeWhenBlockedFor)
			}
		} else {
			w.countUndecodable(err)
		}
		w.batcher.recycle(room)
	}

	// What is left only moves the position: Kubernetes forgets Events after an
	// hour, and that is no news.
	m, err := parseMeta(fr.object, time.Time{})
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errInvalidFrame, err)
	case m.version > seen:
		if err := w.endStall(ctx, watchesWorkAgain); err != nil {
			return m.version, err
		}
		rec := event.Record{Position: event.Position{Version: m.version}}
		return m.version, w.batcher.add(ctx, w.ours(rec), nil, 0, closeWhenBlockedFor)
	case fr.kind == apiwatch.Added || fr.kind == apiwatch.Modified:
		w.metrics.seen.Inc()
		w.skippedCount.Add(1)
	}
	return m.version, nil
}
