package delivery

import (
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/sink"
)

const (
	// asideFlight bounds the batches in flight of streams that are refused while
	// others are accepted. They are counted separately, because each may hang.
	asideFlight = 4

	// toleratedFailures is how many streams in a row may be refused before all streams
	// wait, if another was accepted within toleratedFor: the destination works, and
	// refuses many streams.
	toleratedFailures = 8
	toleratedFor      = time.Second

	// maxRest bounds how long all streams wait after the failure of one: the answer
	// may concern that stream alone.
	maxRest = 45 * time.Second
)

// failing is the state of a stream whose last attempt failed. The answer does not
// decide whether the destination or the stream is to blame. The stream is to blame if
// another one is accepted by an attempt that began after the failure, and this one
// fails again.
type failing struct {
	at       time.Duration // of the last failure, since the loop began
	first    uint64        // number of the attempt that failed first
	last     uint64        // attempts begun when it failed last
	failures int
	err      error
	retry    *backoff.Backoff

	alone    bool      // the stream is to blame
	since    time.Time // since when other streams are known to be accepted
	lately   bool      // another one was accepted between the last two failures
	streamed bool      // according to the sink, the failure concerns this stream only
	asked    time.Time // end of the pause that the destination asked for
}

// fail makes the stream, or the whole destination, wait before the next attempt.
func (l *loop) fail(r result, why *sink.Error, now time.Time) {
	l.metrics.retries(why).Inc()
	s := r.stream
	f := l.noteFailure(s, r.number, why, now)
	f.err = r.err
	if s.queue != nil {
		l.parking.err = r.err
	} else if f.failures <= holdFailures {
		l.parking.others = now
	}
	l.letGo(s)
	if f.alone || f.streamed {
		if !f.streamed && s.queue == nil {
			l.limit = max(1, l.limit/2)
		}
		// Further records may show whether the stream or a record is to blame.
		s.batch.grows = true
		s.rested = now.Add(pause(f.retry, why))
		l.streamOutage.failed(r, s.rested.Sub(now))
		return
	}
	// Attempts that were in flight at the same time count as one failure: the
	// first that fails.
	if r.number > l.failed {
		l.failed = l.attempts
		l.failures++
		l.limit = max(1, l.limit/2)
		rest := pause(l.retry, why)
		s.rested = now.Add(rest)
		tolerated := 1
		if now.Sub(l.acceptedAt) < toleratedFor {
			tolerated = toleratedFailures
		}
		if l.failures > tolerated || retryAfter(why) > 0 {
			l.rested = now.Add(min(rest, maxRest))
		}
		// Else another stream is tried at once, to see whether it fails as well.
	} else if d := retryAfter(why); d > 0 {
		s.rested = now.Add(jittered(d))
	}
	l.outage.failed(r, max(s.rested.Sub(now), l.rested.Sub(now)))
}

// noteFailure updates the state of a stream after a failure, and decides whether the
// stream is to blame.
func (l *loop) noteFailure(s *stream, number uint64, why *sink.Error, now time.Time) *failing {
	f := s.failing
	if f == nil {
		f = &failing{first: number}
		s.failing = f
		if s.queue == nil {
			l.failing[s] = struct{}{}
		}
	}
	f.lately = f.failures > 0 && l.lastAccepted > f.last
	progress := why != nil && why.Progress
	if progress {
		f.failures, f.alone, f.since, f.retry = 0, false, time.Time{}, nil
	}
	if f.lately {
		f.alone = true
		f.noteOthers(now)
	}
	if s.queue != nil {
		f.alone = true
	}
	switch {
	case f.retry != nil:
	case s.queue != nil && !progress && !l.ownParked:
		f.retry = newBackoff(l.ctx, l.MaxBackoff, max(l.MaxBackoff, maxParkedBackoff))
	default:
		f.retry = newBackoff(l.ctx, l.MinBackoff, l.MaxBackoff)
	}
	f.at = now.Sub(l.began)
	f.last = l.attempts
	f.failures++
	f.asked = now.Add(retryAfter(why))
	f.streamed = why != nil && why.StreamOnly
	return f
}

// noteOthers records that others are accepted while this stream is not.
func (f *failing) noteOthers(now time.Time) {
	if f.since.IsZero() {
		f.since = now
	}
}

// letGo frees the memory of a refused batch if there may be many such batches. The
// next attempt reads it again.
func (l *loop) letGo(s *stream) {
	if len(l.streams) > 1 || s.failing.alone || s.failing.streamed {
		l.keepRoom(s.batch.room)
		s.batch.room, s.batch.parked = room{}, nil
	}
}
