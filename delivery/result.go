package delivery

import (
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

type result struct {
	stream *stream
	number uint64 // of the attempt
	began  time.Time
	err    error
	to     *flight // which it belongs to
	parked bool    // it was not sent, but parked
}

// settle draws the consequences of an attempt. Its error means that delivery
// cannot go on.
func (l *loop) settle(r result) error {
	now := time.Now()
	s, b := r.stream, r.stream.batch
	s.inFlight = false
	r.to.end(b)
	if r.parked {
		return l.settleParking(r, now)
	}

	var why *sink.Error
	errors.As(r.err, &why)
	refused := 0
	switch {
	case r.err == nil:
	case why != nil && len(why.Rejected) > 0:
		refused = len(why.Rejected)
		l.refused(b, why)
	case why != nil && why.Permanent:
		return r.err
	default:
		l.fail(r, why, now)
		l.enqueue(s)
		if s.queue != nil {
			l.parkMore(s)
		}
		return nil
	}
	l.metrics.sent.Add(float64(b.len() - refused))
	if refused < b.len() {
		l.wasAccepted(r, now)
	}
	recovered := s.failing != nil
	s.failing = nil
	delete(l.failing, s)
	if recovered {
		l.healStreams(now)
	}
	if r.err == nil && len(b.gaps) > 0 {
		l.gapErr = nil
	}
	s.rested = time.Time{}
	if l.StreamRate > 0 {
		s.rested = r.began.Add(takes(len(b.data), l.StreamRate))
	}
	n := b.len()
	l.keepRoom(b.room)
	b.room, b.settled = room{}, true
	s.batch = nil
	if s.queue != nil {
		return l.acceptedParked(s, b, recovered, now)
	}
	return l.release(s, n, now)
}

// wasAccepted says that the destination works, unless something has failed since
// the attempt began.
func (l *loop) wasAccepted(r result, now time.Time) {
	l.accepted = true
	l.acceptedAt = now
	l.lastAccepted = max(l.lastAccepted, r.number)
	if r.number <= l.failed {
		return
	}
	l.limit = min(l.limit+1, l.Concurrency)
	l.heal(l.outage, now)
	l.failures = 0
	l.retry.Reset()
	l.rested = time.Time{}
}

// release settles the first n entries of a stream.
func (l *loop) release(s *stream, n int, now time.Time) error {
	for range n {
		e := l.window.at(s.first)
		if e.place.Bytes == 0 {
			delete(l.kept, s.first)
		}
		s.len--
		s.bytes -= int(e.place.Bytes)
		l.buffered -= int(e.place.Bytes)
		s.first += uint64(e.next)
		e.next = settled
	}
	if s.len > 0 {
		l.enqueue(s)
	} else {
		l.forget(s, now)
	}
	return l.acknowledge()
}

// acknowledge moves the journal's cursor.
func (l *loop) acknowledge() error {
	offset, moved := l.window.advance()
	if !moved {
		return nil
	}
	if err := l.Consumer.Ack(offset); err != nil {
		return fmt.Errorf("acknowledge to journal: %w", err)
	}
	return nil
}
