package delivery

import (
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
)

// fillParked reads the oldest records of a queue into a batch: the records of its
// earlier attempt, and as many after them as a batch may have. It gives up records that
// are damaged or too old. An error means that the queue cannot be read for now.
func (l *loop) fillParked(b *pending) error {
	q := b.stream.queue
	b.data, b.ends, b.gaps, b.parked = b.data[:0], b.ends[:0], nil, nil
	for {
		records, err := q.Peek(max(b.count, 1), l.BatchBytes)
		switch {
		case errors.Is(err, parked.ErrDamaged):
			l.loseParked(q, err)
			return nil
		case err != nil:
			return err
		}
		old := 0
		for old < len(records) && time.Since(records[old].ParkedAt) > maxParkedAge {
			old++
		}
		if old == 0 {
			l.encodeParked(b, records)
			return nil
		}
		l.abandon(q, records[:old], l.metrics.expired, fmt.Sprintf("the stream was refused for %d days", int(maxParkedAge.Hours()/24)))
	}
}

func (l *loop) encodeParked(b *pending, records []parked.Record) {
	var reader event.Reader
	want := max(b.count, 1)
	for _, p := range records {
		if len(b.ends) >= want && len(b.data) >= l.BatchBytes {
			break
		}
		r, err := reader.Read(p.Data)
		p.Data = nil // it is not needed any more, and the batch may wait for long
		b.parked = append(b.parked, p)
		if err != nil {
			l.Logger.Error("cannot decode a parked record; it is lost", "stream", b.stream.name, "err", err)
			l.metrics.damaged.Inc()
			continue
		}
		l.add(b, r)
	}
}

// acceptedParked removes the records of an accepted batch from their queue.
func (l *loop) acceptedParked(s *stream, b *pending, recovered bool, now time.Time) error {
	l.parking.mended = now
	if err := s.queue.Drop(b.parked); err != nil {
		l.Logger.Warn("cannot remove accepted records from their parking file; a restart may send them again", "stream", s.name, "err", err)
	}
	for _, other := range l.parking.streams {
		// The cause may have been fixed for all streams.
		if f := other.failing; recovered && f != nil && other.index >= 0 && !f.asked.After(now) {
			other.rested = time.Time{}
			l.enqueue(other)
		}
	}
	l.endParking(s, now)
	return nil
}

// parkMore parks the records that have waited in the journal for a queue to become
// empty, now that their stream is refused again.
func (l *loop) parkMore(s *stream) {
	l.parking.mend = l.toMend()
	if half := l.streams[s.name]; half != nil && half.len > 0 && !half.inFlight && half.index < 0 {
		l.enqueue(half)
	}
}

// endParking makes a stream an ordinary one again if its queue is empty.
func (l *loop) endParking(s *stream, now time.Time) {
	defer l.countParked()
	l.parking.mend = l.toMend()
	half := l.streams[s.name] // the half for records from the journal
	if s.queue.Len() > 0 {
		l.enqueue(s)
		return
	}
	if half != nil && half.inFlight {
		return // more is being parked
	}
	if _, err := s.queue.Remove(); err != nil {
		l.Logger.Warn("cannot remove an empty file of parked records", "stream", s.name, "err", err)
	}
	delete(l.parking.streams, s.name)
	if len(l.parking.streams) == 0 {
		l.parking.giveUp.Lock()
		l.parking.exceeded = false
		l.parking.giveUp.Unlock()
		l.parking.err = nil
		l.Logger.Info("no stream is parked any longer")
	}
	if half == nil {
		half = l.stream([]byte(s.name)) // for its rest
	}
	l.parking.toPark.remove(half)
	half.parked, half.rested = nil, s.rested
	if half.len > 0 {
		l.enqueue(half)
	} else {
		l.forget(half, now)
	}
}

// mayLeaveParked reports whether Run may end although records are parked. If the
// store is the delivery's own, each stream is tried leaveAfter times first.
func (l *loop) mayLeaveParked() bool {
	if !l.ownParked {
		return true
	}
	for _, s := range l.parking.streams {
		if s.failing == nil || s.failing.failures < leaveAfter {
			return false
		}
	}
	return true
}
