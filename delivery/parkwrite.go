package delivery

import (
	"fmt"
	"time"
)

// parks reports whether further records of a parked stream go to its queue. They wait
// in the journal while the queue is about to become empty, so that parking can end.
func (l *loop) parks(s *stream) bool {
	q := s.parked
	return q.failing != nil || q.queue.Bytes() > int64(l.BatchBytes) || q.queue.Len() == 0 && !q.inFlight
}

// dispatchParking starts to park the batches that are due, and returns when to look
// again.
func (l *loop) dispatchParking(now time.Time) (next time.Time) {
	if l.parking.toPark.Len() > 0 && l.holds(now) {
		return now.Add(time.Second)
	}
	for l.parking.writing.mayTake(parkFlight) && l.parking.toPark.Len() > 0 {
		s := l.parking.toPark[0]
		if due := l.began.Add(s.due); !l.hurry(s, now) && due.After(now) {
			return due
		}
		l.parking.toPark.pop()
		l.sendToQueue(s, now)
	}
	return now.Add(time.Hour)
}

// sendToQueue begins to park a batch.
func (l *loop) sendToQueue(s *stream, now time.Time) {
	b := &pending{stream: s, room: l.room(), parking: true}
	s.batch = b
	if err := l.fill(s); s.len == 0 || err != nil {
		l.keepRoom(b.room)
		s.batch = nil
		if s.len == 0 { // all of it was lost
			l.forget(s, now)
			return
		}
		l.cannotPark(s, err, now)
		return
	}
	queue := s.parked.queue
	l.begin(b, &l.parking.writing, now, func() error {
		if err := queue.Append(b.data, b.ends, now); err != nil {
			return err
		}
		l.keepBound()
		return nil
	})
}

// cannotPark delays a stream whose records could not be parked.
func (l *loop) cannotPark(s *stream, err error, now time.Time) {
	if l.parking.retry == nil {
		l.parking.retry = newBackoff(l.ctx, l.MinBackoff, l.MaxBackoff)
		l.Logger.Error("cannot park the records of a refused stream; they hold up the journal", "stream", s.name, "err", err)
	}
	s.rested = now.Add(l.parking.retry.NextDelay())
	if q := s.parked; q.queue.Len() == 0 && !q.inFlight {
		// Its records are sent from the journal until it is parked again: the disk may
		// be full for as long as they are in the journal.
		l.aside.remove(q)
		delete(l.parking.streams, s.name)
		s.parked, s.failing = nil, q.failing
		if s.failing != nil {
			s.failing.since = time.Time{}
			l.failing[s] = struct{}{}
		}
	}
	l.parking.mend = fmt.Errorf("cannot park the records of stream %s: %w", s.name, err)
	l.enqueue(s)
}

// settleParking acknowledges the records of a batch that was parked.
func (l *loop) settleParking(r result, now time.Time) error {
	s, b := r.stream, r.stream.batch
	n := b.len()
	l.keepRoom(b.room)
	s.batch = nil
	if r.err != nil {
		l.cannotPark(s, r.err, now)
		return nil
	}
	if l.parking.retry != nil {
		l.parking.retry = nil
		l.parking.mend = l.toMend()
	}
	l.metrics.parked.Add(float64(n))
	l.countParked()
	if q := s.parked; !q.inFlight && q.index < 0 {
		l.enqueue(q)
	}
	return l.release(s, n, now)
}
