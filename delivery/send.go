package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// send begins an attempt.
func (l *loop) send(s *stream, to *flight, now time.Time) {
	b := s.batch
	if b == nil {
		b = &pending{stream: s, tried: now}
		s.batch = b
		if s.queue == nil {
			l.tried = append(l.tried, b)
		}
	}
	if b.data == nil {
		b.room, b.gaps = l.room(), nil
	}
	if s.queue != nil {
		if err := l.fillParked(b); err != nil {
			l.fail(result{stream: s, number: l.attempts + 1, began: now, err: err}, nil, now)
			l.enqueue(s)
			return
		}
		if len(b.ends) == 0 { // all of it was given up
			if err := s.queue.Drop(b.parked); err != nil {
				l.Logger.Warn("parked records that were given up may come again after a restart", "stream", s.name, "err", err)
			}
			l.keepRoom(b.room)
			s.batch = nil
			l.endParking(s, now)
			return
		}
	} else if len(b.ends) < b.count || b.tries == 0 || b.grows {
		err := l.fill(s)
		switch {
		case s.len == 0: // all of it was lost
			b.settled, s.batch = true, nil
			l.forget(s, now)
			return
		case err != nil:
			l.fail(result{stream: s, number: l.attempts + 1, began: now, err: err}, nil, now)
			l.enqueue(s)
			return
		}
	}
	if b.tries > 0 {
		l.metrics.resent.Add(float64(b.len()))
	}
	b.tries++
	batch := b.batch()
	batch.Isolate = s.failing != nil && l.lastAccepted > s.failing.last
	if l.Rate > 0 {
		// A second's worth may be made up for, not more.
		if earliest := now.Add(-time.Second); l.paced.Before(earliest) {
			l.paced = earliest
		}
		l.paced = l.paced.Add(takes(l.Size(&batch), l.Rate))
	}
	l.begin(b, to, now, func() error { return l.attempt(&batch) })
}

// begin makes an attempt, whose result comes to run.
func (l *loop) begin(b *pending, to *flight, now time.Time, attempt func() error) {
	l.attempts++
	r := result{stream: b.stream, number: l.attempts, began: now, to: to, parked: b.parking}
	b.stream.inFlight = true
	to.begin(b)
	l.started.Go(func() {
		r.err = attempt()
		select {
		case l.results <- r:
		case <-l.ctx.Done():
		}
	})
}

// attempt sends a batch, within what time it is given and permitted.
func (l *loop) attempt(b *sink.Batch) error {
	began := time.Now()
	ctx, cancel := sink.WithFence(l.ctx, l.Fence), func() {}
	var err error
	if !l.MultiRequest {
		ctx, cancel, err = sink.BeginRequest(ctx)
	}
	if err == nil {
		defer cancel()
		if l.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, l.Timeout)
			defer cancel()
		}
		err = l.Sink.Send(ctx, b)
	}
	switch {
	case errors.Is(err, sink.ErrFenced):
		<-l.ctx.Done()
		return l.ctx.Err()
	case err != nil && ctx.Err() != nil && l.ctx.Err() == nil:
		return &sink.Error{Reason: sink.ReasonTimeout, Err: fmt.Errorf("no answer within %v: %w", time.Since(began).Round(time.Millisecond), err)}
	default:
		return err
	}
}

// takes is how long it takes to send bytes at a rate.
func takes(bytes int, rate float64) time.Duration {
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}
