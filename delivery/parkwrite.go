package delivery

import (
	"fmt"
	"time"
)

// maxWrites bounds the batches that are written to queues at the same time; each waits
// for the disk.
const maxWrites = 4

// parksMore reports whether the source of a parked stream adds records to its queue. They
// wait in the journal while the queue is about to become empty, so that parking can end.
func (l *loop) parksMore(source *stream) bool {
	p := source.parkedAs
	return p.failure != nil || p.queue.Bytes() > int64(l.BatchBytes) || p.queue.Len() == 0 && !p.inFlight
}

// writeDue starts to write the batches to queues that are due, and returns when to call
// it again.
func (l *loop) writeDue(now time.Time) (next time.Time) {
	sources := &l.parking.sources
	if sources.Len() > 0 && l.parkingSuspended(now) {
		return now.Add(time.Second)
	}
	for l.parking.writing.canSend(maxWrites) && sources.Len() > 0 {
		s := (*sources)[0]
		if due := l.began.Add(s.due); !l.sendEarly(s, now) && due.After(now) {
			return due
		}
		sources.pop()
		l.writeBatch(s, now)
	}
	return now.Add(time.Hour)
}

// writeBatch builds the batch of a source and starts to write it to the queue.
func (l *loop) writeBatch(s *stream, now time.Time) {
	b := &batch{stream: s, buffer: l.newBuffer(), toPark: true}
	s.batch = b
	if err := l.buildBatch(s); err != nil {
		l.freeBuffer(b.buffer)
		s.batch = nil
		l.retryWrite(s, err, now)
		return
	}
	queue := s.parkedAs.queue
	l.startAttempt(b, &l.parking.writing, now, func() error {
		if err := queue.Append(b.data, b.ends, now); err != nil {
			return err
		}
		l.dropExcess()
		return nil
	})
}

// completeWrite handles the result of writing a batch to a queue.
func (l *loop) completeWrite(r result, now time.Time) error {
	s, b := r.stream, r.stream.batch
	n := b.len()
	l.freeBuffer(b.buffer)
	s.batch = nil
	if r.err != nil {
		l.retryWrite(s, r.err, now)
		return nil
	}
	if l.parking.writeBackoff != nil {
		l.parking.writeBackoff = nil
		l.parking.needsOperator = l.parkedNeedsOperator()
	}
	l.metrics.parked.Add(float64(n))
	l.updateParked()
	if p := s.parkedAs; !p.inFlight && p.index < 0 {
		l.schedule(p)
	}
	return l.completeEntries(s, n, now)
}

// retryWrite delays a source after a failure to write its records to the queue.
func (l *loop) retryWrite(s *stream, err error, now time.Time) {
	if l.parking.writeBackoff == nil {
		l.parking.writeBackoff = newBackoff(l.ctx, l.MinBackoff, l.MaxBackoff)
		l.Logger.Error("cannot park the records of a refused stream; the journal keeps them", "stream", s.name, "err", err)
	}
	s.notBefore = now.Add(l.parking.writeBackoff.NextDelay())
	if p := s.parkedAs; p.queue.Len() == 0 && !p.inFlight {
		// It is sent from the journal until it is parked again: the disk may be full
		// until the journal can delete these records.
		l.faulty.remove(p)
		delete(l.parking.streams, s.name)
		s.parkedAs, s.failure = nil, p.failure
		if s.failure != nil {
			s.failure.othersSince = time.Time{}
			l.failing[s] = struct{}{}
		}
	}
	l.parking.needsOperator = fmt.Errorf("cannot park the records of stream %s: %w", s.name, err)
	l.schedule(s)
}
