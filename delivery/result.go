package delivery

import (
	"errors"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// result is the result of one attempt.
type result struct {
	stream   *stream
	attempt  uint64 // its number
	began    time.Time
	err      error
	inFlight *inFlight // the counter of the batch
	parked   bool      // the batch was written to a queue instead of sent
}

// complete handles the result of one attempt. Its error ends the delivery.
func (l *loop) complete(r result) error {
	now := time.Now()
	s, b := r.stream, r.stream.batch
	s.inFlight = false
	r.inFlight.remove(b)
	if r.parked {
		return l.completeWrite(r, now)
	}

	var why *sink.Error
	errors.As(r.err, &why)
	rejected := 0
	switch {
	case r.err == nil:
	case why != nil && len(why.Rejected) > 0:
		rejected = len(why.Rejected)
		l.countRejected(b, why.Rejected)
	case why != nil && why.Permanent:
		return r.err
	default:
		l.retryLater(r, why, now)
		l.schedule(s)
		if s.queue != nil {
			l.resumeParking(s)
		}
		return nil
	}
	l.metrics.sent.Add(float64(b.len() - rejected))
	if rejected < b.len() {
		l.noteAccepted(r, now)
	}
	recovered := s.failure != nil
	s.failure = nil
	delete(l.failing, s)
	if recovered {
		l.noteStreamRecovery(now)
	}
	if r.err == nil && len(b.gaps) > 0 {
		l.gapErr = nil
	}
	s.notBefore = time.Time{}
	if l.StreamRate > 0 {
		s.notBefore = r.began.Add(timeAtRate(len(b.data), l.StreamRate))
	}
	n := b.len()
	l.freeBuffer(b.buffer)
	b.buffer, b.completed = buffer{}, true
	s.batch = nil
	if s.queue != nil {
		l.completeParked(s, b, recovered, now)
		return nil
	}
	return l.completeEntries(s, n, now)
}

// noteAccepted ends the backoff of the destination, unless an attempt has failed since
// this one began.
func (l *loop) noteAccepted(r result, now time.Time) {
	l.acceptedAt = now
	l.lastAccepted = max(l.lastAccepted, r.attempt)
	if r.attempt <= l.attemptsAtFailure {
		return
	}
	l.concurrency = min(l.concurrency+1, l.Concurrency)
	l.outage.noteRecovery(now)
	l.failures = 0
	l.backoff.Reset()
	l.backoffUntil = time.Time{}
}
