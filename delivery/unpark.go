package delivery

import (
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
)

const (
	// maxParkedAge bounds the time for which a record is parked. Loki refuses older ones
	// by default.
	maxParkedAge = 7 * 24 * time.Hour

	// finalAttempts is the number of attempts to send each parked stream before a
	// delivery ends together with its store.
	finalAttempts = 3
)

// readParked reads the oldest records of a queue into a batch: the records of its last
// attempt and as many more as fit. It drops damaged records and those that are too old.
// An error means that the queue cannot be read at present.
func (l *loop) readParked(b *batch) error {
	q := b.stream.queue
	b.data, b.ends, b.gaps, b.parked = b.data[:0], b.ends[:0], nil, nil
	for {
		records, err := q.Peek(max(b.count, 1), l.BatchBytes)
		switch {
		case errors.Is(err, parked.ErrDamaged):
			l.dropDamaged(q, err)
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
		l.dropRecords(q, records[:old], droppedParkedExpired, fmt.Sprintf("the stream was refused for %d days", int(maxParkedAge.Hours()/24)))
	}
}

func (l *loop) encodeParked(b *batch, records []parked.Record) {
	var reader event.Reader
	atLeast := max(b.count, 1)
	for _, p := range records {
		if len(b.ends) >= atLeast && len(b.data) >= l.BatchBytes {
			break
		}
		r, err := reader.Read(p.Data)
		p.Data = nil // the batch may wait for long
		b.parked = append(b.parked, p)
		if err != nil {
			l.Logger.Error("cannot decode a parked record; dropping it", "stream", b.stream.name, "err", err)
			l.metrics.countDropped(droppedDamaged, 1)
			continue
		}
		l.encode(b, r)
	}
}

// skipParked completes a batch of which no record is left to send.
func (l *loop) skipParked(p *stream, now time.Time) {
	b := p.batch
	if err := p.queue.Drop(b.parked); err != nil {
		l.Logger.Warn("cannot remove dropped records from their queue; a restart may send them", "stream", p.name, "err", err)
	}
	l.freeBuffer(b.buffer)
	p.batch = nil
	l.endParking(p, now)
}

// completeParked removes the records of an accepted batch from their queue.
func (l *loop) completeParked(p *stream, b *batch, recovered bool, now time.Time) {
	l.parking.acceptedAt = now
	if err := p.queue.Drop(b.parked); err != nil {
		l.Logger.Warn("cannot remove accepted records from their queue; a restart may send them again", "stream", p.name, "err", err)
	}
	for _, other := range l.parking.streams {
		// The cause may have been fixed for all streams.
		if f := other.failure; recovered && f != nil && other.index >= 0 && !f.retryAfter.After(now) {
			other.notBefore = time.Time{}
			l.schedule(other)
		}
	}
	l.endParking(p, now)
}

// resumeParking schedules the source of a parked stream that has failed again. Its records
// have waited in the journal for the queue to become empty.
func (l *loop) resumeParking(p *stream) {
	l.parking.needsOperator = l.parkedNeedsOperator()
	if source := l.streams[p.name]; source != nil && source.len > 0 && !source.inFlight && source.index < 0 {
		l.schedule(source)
	}
}

// endParking ends the parking of a stream if its queue is empty, and schedules it
// otherwise.
func (l *loop) endParking(p *stream, now time.Time) {
	defer l.updateParked()
	l.parking.needsOperator = l.parkedNeedsOperator()
	if p.queue.Len() > 0 {
		l.schedule(p)
		return
	}
	source := l.streams[p.name]
	if source != nil && source.inFlight {
		return // more records are being written to the queue
	}
	if _, err := p.queue.Remove(); err != nil {
		l.Logger.Warn("cannot remove an empty file of parked records", "stream", p.name, "err", err)
	}
	delete(l.parking.streams, p.name)
	if len(l.parking.streams) == 0 {
		l.parking.dropping.Lock()
		l.parking.overflowing = false
		l.parking.dropping.Unlock()
		l.parking.err = nil
		l.Logger.Info("no stream is parked any more")
	}
	if source == nil {
		source = l.stream([]byte(p.name)) // for its delay
	}
	l.parking.sources.remove(source)
	source.parkedAs, source.notBefore = nil, p.notBefore
	if source.len > 0 {
		l.schedule(source)
	} else {
		l.setIdle(source, now)
	}
}

// canLeaveParked reports whether the delivery may end although records are parked. If its
// store ends with it, it tries each stream a few times first.
func (l *loop) canLeaveParked() bool {
	if !l.ownStore {
		return true
	}
	for _, p := range l.parking.streams {
		if p.failure == nil || p.failure.count < finalAttempts {
			return false
		}
	}
	return true
}
