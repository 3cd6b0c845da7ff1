package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// maxBytesInFlight bounds the batches in flight, apart from a single one: each is copied
// and compressed while it is sent.
const maxBytesInFlight = 1 << 20

// inFlight counts the batches that wait for the result of an attempt.
type inFlight struct{ batches, bytes int }

func (f *inFlight) add(b *batch)    { f.batches++; f.bytes += len(b.data) }
func (f *inFlight) remove(b *batch) { f.batches--; f.bytes -= len(b.data) }

// canSend reports whether another batch may be sent.
func (f *inFlight) canSend(limit int) bool {
	return f.batches == 0 || f.batches < limit && f.bytes < maxBytesInFlight
}

// sendDue sends the batches that are due, and returns when to call it again.
func (l *loop) sendDue() (next time.Time) {
	now := time.Now()
	faulty := maxFaultyInFlight
	if l.failures > 1 {
		faulty = 1 // the destination itself may be down
	}
	next = now.Add(time.Hour)
	for _, at := range []time.Time{
		l.endOutages(now),
		l.parkFailing(now),
		l.writeDue(now),
		l.sendFrom(&l.faulty, &l.faultyInFlight, faulty, now),
		l.sendFrom(&l.queue, &l.inFlight, l.concurrency, now),
	} {
		if at.Before(next) {
			next = at
		}
	}
	return next
}

// sendFrom sends the batches of one queue that are due, and with them those that are due within
// BatchWait: an attempt costs a third of the CPU, and half at the destination, if the processor
// need not wake up for it alone. If the limit of batches in flight is reached, the next result
// wakes the loop.
func (l *loop) sendFrom(q *dueQueue, f *inFlight, limit int, now time.Time) (next time.Time) {
	for f.canSend(limit) && q.Len() > 0 {
		at := l.backoffUntil
		if l.rateUntil.After(at) {
			at = l.rateUntil
		}
		s := (*q)[0]
		if due := l.began.Add(s.due); !l.sendEarly(s, now) && due.After(at) {
			at = due
		}
		if at.After(now) {
			return at
		}
		l.burstUntil = now.Add(l.BatchWait)
		l.send(q.pop(), f, now)
	}
	return now.Add(time.Hour)
}

// sendEarly reports whether the batch of a stream need not wait to fill.
func (l *loop) sendEarly(s *stream, now time.Time) bool {
	return !s.notBefore.After(now) && (l.drained || l.windowFull() || l.began.Add(s.due).Before(l.burstUntil))
}

// send builds the batch of a stream and starts an attempt.
func (l *loop) send(s *stream, f *inFlight, now time.Time) {
	b := s.batch
	if b == nil {
		b = &batch{stream: s, firstAttempt: now}
		s.batch = b
		if s.queue == nil {
			l.attempted = append(l.attempted, b)
		}
	}
	if b.data == nil {
		b.buffer, b.gaps = l.newBuffer(), nil
	}
	var err error
	switch {
	case s.queue != nil:
		if err = l.readParked(b); err == nil && len(b.ends) == 0 {
			l.skipParked(s, now)
			return
		}
	case len(b.ends) < b.count || b.attempts == 0 || b.grows:
		err = l.buildBatch(s)
	}
	if err != nil {
		l.retryLater(result{stream: s, attempt: l.attempts + 1, began: now, err: err}, nil, now)
		l.schedule(s)
		return
	}
	if b.attempts > 0 {
		l.metrics.resent.Add(float64(b.len()))
	}
	b.attempts++
	contents := b.contents()
	contents.Isolate = s.failure != nil && l.lastAccepted > s.failure.lastAttempt
	if l.Rate > 0 {
		// At most one second of unused rate is used later.
		if earliest := now.Add(-time.Second); l.rateUntil.Before(earliest) {
			l.rateUntil = earliest
		}
		l.rateUntil = l.rateUntil.Add(timeAtRate(l.Size(&contents), l.Rate))
	}
	l.startAttempt(b, f, now, func() error { return l.sendOnce(&contents) })
}

// startAttempt runs an attempt in a goroutine, which passes the result to run.
func (l *loop) startAttempt(b *batch, f *inFlight, now time.Time, attempt func() error) {
	l.attempts++
	r := result{stream: b.stream, attempt: l.attempts, began: now, inFlight: f, parked: b.toPark}
	b.stream.inFlight = true
	f.add(b)
	l.goroutines.Go(func() {
		r.err = attempt()
		select {
		case l.results <- r:
		case <-l.ctx.Done():
		}
	})
}

// sendOnce sends a batch, within the timeout and while the fence permits it.
func (l *loop) sendOnce(b *sink.Batch) error {
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
		return &sink.Error{Reason: sink.ReasonTimeout, Err: fmt.Errorf("no response within %v: %w", time.Since(began).Round(time.Millisecond), err)}
	default:
		return err
	}
}

// timeAtRate returns the time in which bytes are sent at a rate.
func timeAtRate(bytes int, rate float64) time.Duration {
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}
