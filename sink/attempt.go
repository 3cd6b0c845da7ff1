package sink

import (
	"context"
	"fmt"
	"time"
)

// keptRoom is how large a room may be to be kept: in flight are some, and most
// batches are smaller.
const keptRoom = 128 << 10

// room is memory for a batch.
type room struct {
	data []byte
	ends []int
}

// send begins an attempt.
func (l *loop) send(s *stream, now time.Time) {
	b := s.batch
	if b == nil {
		b = &pending{stream: s, tried: now}
		s.batch = b
		l.tried = append(l.tried, b)
	}
	if b.tries == 0 || b.grows {
		if b.data == nil {
			b.room = l.room()
		}
		err := l.fill(s)
		switch {
		case s.len == 0: // all of it was lost
			b.settled, s.batch = true, nil
			l.forget(s, now)
			return
		case err != nil:
			l.failed(result{stream: s, began: now, err: err}, nil, now)
			l.enqueue(s)
			return
		}
	}
	if b.tries > 0 {
		l.metrics.resent.Add(float64(b.len()))
	}
	b.tries++
	batch := b.batch()
	s.inFlight = true
	l.inFlight++
	l.flying += len(b.data)
	if l.Rate > 0 {
		// A second's worth may be made up for, not more.
		if earliest := now.Add(-time.Second); l.paced.Before(earliest) {
			l.paced = earliest
		}
		l.paced = l.paced.Add(takes(l.Size(&batch), l.Rate))
	}
	l.started.Go(func() {
		err := l.attempt(&batch)
		select {
		case l.results <- result{s, now, err}:
		case <-l.ctx.Done():
		}
	})
}

// room returns memory for a batch.
func (l *loop) room() room {
	last := len(l.rooms) - 1
	if last < 0 {
		return room{}
	}
	r := l.rooms[last]
	l.rooms = l.rooms[:last]
	return r
}

// keepRoom keeps memory for others that nobody uses any more.
func (l *loop) keepRoom(r room) {
	if cap(r.data) <= keptRoom {
		l.rooms = append(l.rooms, room{r.data[:0], r.ends[:0]})
	}
}

// attempt sends a batch, within what time it is given and permitted.
func (l *loop) attempt(b *Batch) error {
	var until time.Time
	if l.Permit != nil {
		var ok bool
		if until, ok = l.Permit(); !ok {
			<-l.ctx.Done()
			return l.ctx.Err()
		}
	}
	if l.Timeout == 0 {
		return l.Sink.Send(l.ctx, b)
	}
	began := time.Now()
	if end := began.Add(l.Timeout); until.IsZero() || end.Before(until) {
		until = end
	}
	ctx, cancel := context.WithDeadline(l.ctx, until)
	defer cancel()
	err := l.Sink.Send(ctx, b)
	if err != nil && ctx.Err() != nil && l.ctx.Err() == nil {
		return &Error{Reason: ReasonTimeout, Err: fmt.Errorf("no answer within %v: %w", until.Sub(began).Round(time.Millisecond), err)}
	}
	return err
}

// takes is how long it takes to send bytes at a rate.
func takes(bytes int, rate float64) time.Duration {
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}
