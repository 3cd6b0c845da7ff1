package delivery

import (
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/sink"
)

const (
	// maxFaultyInFlight bounds the batches in flight of faulty streams. They have a bound
	// of their own, because each may take until the timeout.
	maxFaultyInFlight = 4

	// toleratedFailures is the number of consecutive failures of different streams that
	// are tolerated before all streams wait, if the destination has accepted a batch within
	// toleratedFor: then it works and refuses many streams.
	toleratedFailures = 8
	toleratedFor      = time.Second

	// maxSharedBackoff bounds the time for which all streams wait after the failure of
	// one, which may concern that stream alone.
	maxSharedBackoff = 45 * time.Second
)

// failure is the state of a stream after a failed attempt. A single failure does not
// show whether the destination or the stream is at fault. The stream is at fault if an
// attempt of another stream began after the failure and was accepted, and this stream
// fails again. Such streams are called faulty.
type failure struct {
	at           time.Duration // of the last one, since the loop began
	firstAttempt uint64        // number of the first failed attempt
	lastAttempt  uint64        // number of attempts started when it failed last
	count        int
	err          error
	backoff      *backoff.Backoff

	ownFault      bool      // the stream is at fault
	streamOnly    bool      // the sink reports that the failure concerns only this stream
	othersSince   time.Time // since when other streams are known to be accepted
	othersBetween bool      // another stream was accepted between the last two failures
	retryAfter    time.Time // end of the delay that the destination requested
}

// retryLater delays the next attempt of the stream, or of all streams.
func (l *loop) retryLater(r result, why *sink.Error, now time.Time) {
	l.metrics.countRetry(why)
	s := r.stream
	f := l.noteFailure(s, r.attempt, why, now)
	f.err = r.err
	if s.queue != nil {
		l.parking.err = r.err
	} else if f.count <= maxFailuresBeforeParking {
		l.parking.othersFailedAt = now
	}
	l.releaseBuffer(s)
	if f.ownFault || f.streamOnly {
		if !f.streamOnly && s.queue == nil {
			l.concurrency = max(1, l.concurrency/2)
		}
		// Further records may show whether the stream or a record is at fault.
		s.batch.grows = true
		s.notBefore = now.Add(retryDelay(f.backoff, why))
		l.streamOutage.noteFailure(r, s.notBefore.Sub(now))
		return
	}
	// Failed attempts that were in flight at the same time count as one.
	if r.attempt > l.attemptsAtFailure {
		l.attemptsAtFailure = l.attempts
		l.failures++
		l.concurrency = max(1, l.concurrency/2)
		delay := retryDelay(l.backoff, why)
		s.notBefore = now.Add(delay)
		tolerated := 1
		if now.Sub(l.acceptedAt) < toleratedFor {
			tolerated = toleratedFailures
		}
		if l.failures > tolerated || retryAfter(why) > 0 {
			l.backoffUntil = now.Add(min(delay, maxSharedBackoff))
		}
		// Otherwise another stream is sent at once, which shows whether it fails too.
	} else if d := retryAfter(why); d > 0 {
		s.notBefore = now.Add(withJitter(d))
	}
	l.outage.noteFailure(r, max(s.notBefore.Sub(now), l.backoffUntil.Sub(now)))
}

// noteFailure updates the failure of a stream and decides whether the stream is at
// fault.
func (l *loop) noteFailure(s *stream, attempt uint64, why *sink.Error, now time.Time) *failure {
	f := s.failure
	if f == nil {
		f = &failure{firstAttempt: attempt}
		s.failure = f
		if s.queue == nil {
			l.failing[s] = struct{}{}
		}
	}
	f.othersBetween = f.count > 0 && l.lastAccepted > f.lastAttempt
	progress := why != nil && why.Progress
	if progress {
		f.count, f.ownFault, f.othersSince, f.backoff = 0, false, time.Time{}, nil
	}
	if f.othersBetween {
		f.ownFault = true
		f.noteOthers(now)
	}
	if s.queue != nil {
		f.ownFault = true
	}
	switch {
	case f.backoff != nil:
	case s.queue != nil && !progress && !l.ownStore:
		f.backoff = newBackoff(l.ctx, l.MaxBackoff, max(l.MaxBackoff, maxParkedBackoff))
	default:
		f.backoff = newBackoff(l.ctx, l.MinBackoff, l.MaxBackoff)
	}
	f.at = now.Sub(l.began)
	f.lastAttempt = l.attempts
	f.count++
	f.retryAfter = now.Add(retryAfter(why))
	f.streamOnly = why != nil && why.StreamOnly
	return f
}

// noteOthers records that other streams are accepted while this one fails.
func (f *failure) noteOthers(now time.Time) {
	if f.othersSince.IsZero() {
		f.othersSince = now
	}
}

// releaseBuffer frees the memory of a failed batch if there may be many of them. The next
// attempt reads the records again.
func (l *loop) releaseBuffer(s *stream) {
	if len(l.streams) > 1 || s.failure.ownFault || s.failure.streamOnly {
		l.freeBuffer(s.batch.buffer)
		s.batch.buffer, s.batch.parked = buffer{}, nil
	}
}
