package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/hindsight-events/hindsight/event"
)

// The timeout that a watch requests is random, so that watches do not end together. It ends
// well within the five minutes after which etcd is compacted, so that the position is checked
// in time.
const (
	minWatch   = 120 * time.Second
	maxWatch   = 240 * time.Second
	watchGrace = 45 * time.Second // after its timeout, a watch that has not ended is closed
)

// minOpenTime is how long a silent watch must have been open to count as working.
const minOpenTime = 5 * time.Second

// closeWhenBlockedFor is how long a watch stays open while the journal accepts no records. The
// API server buffers without bound for a watch that is not read:
// https://github.com/kubernetes/apiserver/blob/v0.36.3/pkg/storage/etcd3/watcher.go
const closeWhenBlockedFor = time.Minute

// session is one open watch.
type session struct {
	*Watcher
	frames    *frames
	requested time.Time // a proxy may delay even the headers
	seen      uint64    // version of the newest frame, initially of the position
	working   bool      // a frame has been handled
	delivered time.Time // of the first frame that was newer than the position; zero: none
}

// watch opens a watch at the position and adds its records to the batcher until it ends. It
// returns nil if the API server ended it cleanly.
func (w *Watcher) watch(ctx context.Context) error {
	pos := w.batcher.at()
	w.openedVersion, w.deliveredNewer = pos.Version, false
	length, headers, grace := w.watchTimeouts()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, length+grace, errOverdue)
	defer stop()

	// The API server does not cache Events, so it sends no bookmarks for them. If it ever does,
	// they save lists in quiet minutes.
	req := w.events().
		Param("watch", "true").
		Param("resourceVersion", strconv.FormatUint(pos.Version, 10)).
		Param("timeoutSeconds", strconv.Itoa(int(length.Seconds()))).
		Param("allowWatchBookmarks", "true")
	s := session{Watcher: w, requested: time.Now(), seen: pos.Version}
	in, err := open(ctx, req, headers, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	w.health.contacted()
	s.frames = newFrames(in)
	if t, ok := transportOf(w.client); ok {
		t.pacing.watches.Add(1)
		defer t.pacing.watches.Add(-1)
	}

	if !w.shortWatches {
		monitored := make(chan struct{})
		go func() {
			defer close(monitored)
			w.monitor(ctx, cancel)
		}()
		defer func() {
			cancel(nil)
			<-monitored
		}()
	}

	err = s.read(ctx)
	if !s.delivered.IsZero() && time.Since(s.delivered) >= minOpenTime {
		w.shortWatches = false // no proxy delays the frames until the end
	}
	return err
}

// watchTimeouts returns the timeout that the next watch requests, the timeout for its headers,
// and the grace period after its own timeout.
func (w *Watcher) watchTimeouts() (length, headers, grace time.Duration) {
	if !w.shortWatches {
		return minWatch + rand.N(maxWatch-minWatch), headerTimeout, watchGrace
	}
	length = minShortWatch + rand.N(maxShortWatch-minShortWatch)
	// A proxy may delay the headers too, so only the watch itself has a deadline.
	return length, length + 2*shortWatchGrace, shortWatchGrace
}

// read handles frames until the watch ends.
func (s *session) read(ctx context.Context) error {
	defer s.batcher.hold(false)
	for {
		fr, err := s.frames.next()
		if err == io.EOF { //nolint:errorlint // a wrapped io.EOF is an error of the connection
			if !s.working && time.Since(s.requested) < minOpenTime {
				return errClosedAtOnce
			}
			s.succeeded()
			return nil
		}
		if err != nil {
			return err
		}
		more := s.frames.buffered()
		if more {
			s.batcher.hold(true)
		}
		version, err := s.handleFrame(ctx, fr)
		if !more {
			s.batcher.hold(false)
		}
		if err != nil {
			var silent errSilent
			if version > s.seen && (errors.Is(err, errOverdue) || errors.As(err, &silent)) {
				// The watch has delivered a state that the journal does not accept: no stall.
				return errBlocked
			}
			return err
		}
		if s.delivered.IsZero() && version > s.seen {
			s.delivered, s.deliveredNewer = time.Now(), true
		}
		s.seen = max(s.seen, version)
		if s.working {
			s.health.contacted()
		} else {
			s.succeeded()
			s.working = true
		}
	}
}

// handleFrame adds the record of a frame that is newer than s.seen. It returns the frame's
// version, also if the record could not be added.
func (s *session) handleFrame(ctx context.Context, fr frame) (uint64, error) {
	switch fr.kind {
	case apiwatch.Added, apiwatch.Modified, apiwatch.Deleted, apiwatch.Bookmark:
	case apiwatch.Error:
		var st metav1.Status
		if err := st.Unmarshal(fr.object); err != nil {
			return 0, fmt.Errorf("%w: status: %w", errInvalidFrame, err)
		}
		return 0, apierrors.FromObject(&st)
	default:
		return 0, fmt.Errorf("%w: type %q", errInvalidFrame, fr.kind)
	}

	if fr.kind == apiwatch.Added || fr.kind == apiwatch.Modified {
		buffer := s.batcher.newBuffer()
		clock := s.clock.now()
		if e, err := buffer.DecodeAt(fr.object, clock); err != nil {
			s.countUndecodable(err)
		} else if rec := event.NewAt(e, clock); rec.Position.Version > s.seen {
			return rec.Position.Version, s.add(ctx, rec, buffer, len(fr.object))
		}
		s.batcher.recycle(buffer)
	}

	// All other frames only move the position. A deletion is no news: Events expire after an
	// hour.
	m, err := parseMeta(fr.object, time.Time{})
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errInvalidFrame, err)
	case m.version > s.seen:
		return m.version, s.add(ctx, event.Record{Position: event.Position{Version: m.version}}, nil, 0)
	case fr.kind == apiwatch.Added || fr.kind == apiwatch.Modified:
		s.metrics.seen.Inc()
		s.skippedCount.Add(1)
	}
	return m.version, nil
}

// add adds a record that is newer than s.seen. The first one ends a stall.
func (s *session) add(ctx context.Context, rec event.Record, buffer *event.DecodeBuffer, size int) error {
	if s.delivered.IsZero() {
		if err := s.endStall(ctx, "watches work again"); err != nil {
			if buffer != nil {
				s.batcher.recycle(buffer)
			}
			return err
		}
	}
	return s.batcher.add(ctx, rec, buffer, size, closeWhenBlockedFor)
}
