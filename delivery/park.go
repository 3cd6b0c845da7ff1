package delivery

import (
	"slices"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"
)

const (
	// parkAfter is the time for which a stream is refused while others are accepted,
	// before its records are parked so that the journal can be acknowledged.
	parkAfter = time.Minute

	// parkAfterFull is the same while other streams have to wait for the refused one.
	parkAfterFull = 10 * time.Second

	// An overloaded destination refuses attempts of all streams and accepts some. Then
	// nothing is parked beyond the bound, at which the oldest parked records are dropped,
	// and records wait in the journal: until no unparked stream has failed for
	// quietBeforeDrop, and no parked stream was accepted for maxParkedBackoff.
	quietBeforeDrop = 15 * time.Second

	// maxFailuresBeforeParking is the number of consecutive failures, about a minute,
	// after which a stream no longer counts as unparked: it may have to be parked itself.
	maxFailuresBeforeParking = 7

	// maxParkedBackoff bounds the backoff of a parked stream. All are retried at once when
	// one of them is accepted again.
	maxParkedBackoff = time.Minute
)

// parking is the state of a loop that concerns parked streams.
type parking struct {
	streams map[string]*stream // the parked ones, by name

	sources      dueQueue // the sources that have records to park
	writing      inFlight // batches that are being written to queues
	writeBackoff *backoff.Backoff

	checkedAt      time.Time // when parkFailing last ran
	nearlyFull     bool      // the bound is nearly reached
	othersFailedAt time.Time // when an unparked stream failed last
	acceptedAt     time.Time // when a parked stream was accepted last
	needsOperator  error     // see State
	err            error     // of the last failed attempt of a parked stream; nil if none is parked

	dropping    sync.Mutex // held while records are dropped; guards overflowing
	overflowing bool       // the bound was exceeded, which was logged
}

// parkFailing parks the streams that have been refused for too long, and returns when to
// call it again.
func (l *loop) parkFailing(now time.Time) (next time.Time) {
	const every = time.Second
	if len(l.failing) == 0 {
		return now.Add(time.Hour)
	}
	if next := l.parking.checkedAt.Add(every); next.After(now) {
		return next
	}
	l.parking.checkedAt = now
	if l.parkingSuspended(now) {
		return now.Add(every)
	}
	// During the final drain with a store of its own, no more records come.
	after, pressure := parkAfter, l.underPressure() || l.drained && l.ownStore
	if pressure {
		after = parkAfterFull
	}
	nothingElse := pressure && l.nothingElseToSend()
	for s := range l.failing {
		f := s.failure
		// If there is nothing else to try, an acceptance since the first failure
		// suffices.
		others := l.lastAccepted > f.lastAttempt || nothingElse && l.lastAccepted > f.firstAttempt
		if others {
			f.noteOthers(now)
		}
		// It failed after others had been accepted, or its delay is that long.
		faulty := f.ownFault || s.notBefore.After(now) || nothingElse
		if !s.inFlight && faulty && !f.othersSince.IsZero() && now.Sub(f.othersSince) >= after && (others || f.othersBetween || pressure) {
			l.park(s)
		}
	}
	return now.Add(every)
}

// underPressure reports whether the journal or the window fills with records that wait
// for the oldest one.
func (l *loop) underPressure() bool {
	return l.windowFull() || l.window.bytes >= 2*l.WindowBytes
}

// nothingElseToSend reports whether all waiting streams have failed and most of the window
// was accepted, unlike in an outage of the destination.
func (l *loop) nothingElseToSend() bool {
	return l.inFlight.batches == 0 && l.pendingBytes < l.window.bytes/2 && !slices.ContainsFunc(l.queue, func(s *stream) bool { return s.failure == nil })
}

// parkingSuspended reports whether nothing is parked at present, because it would make
// records be dropped that may still be accepted.
func (l *loop) parkingSuspended(now time.Time) bool {
	return l.parking.nearlyFull && (l.failures > 0 ||
		now.Sub(l.parking.othersFailedAt) < quietBeforeDrop || now.Sub(l.parking.acceptedAt) < maxParkedBackoff)
}

// park makes a stream the source of a parked stream, which is sent from a queue.
func (l *loop) park(s *stream) {
	l.queue.remove(s)
	l.faulty.remove(s)
	if len(l.parking.streams) == 0 && l.parking.writeBackoff == nil {
		l.Logger.Warn("destination refuses a stream and accepts others; parking its records until it accepts the stream",
			"stream", s.name, "records", s.len, "failed_attempts", s.failure.count, "err", s.failure.err)
	}
	p := &stream{name: s.name, index: -1, queue: l.Parked.Queue(s.name), failure: s.failure, notBefore: s.notBefore}
	p.failure.ownFault, p.failure.backoff, p.failure.count = true, nil, 0 // the backoff is longer
	if s.batch != nil {
		// The sink may have accepted some of its records, so it is sent first.
		p.batch = &batch{stream: p, count: s.batch.count, attempts: s.batch.attempts, grows: true, gaps: s.batch.gaps}
		s.batch.completed = true
		l.freeBuffer(s.batch.buffer)
	}
	l.parking.err = s.failure.err
	delete(l.failing, s)
	s.batch, s.failure, s.notBefore = nil, nil, time.Time{}
	s.parkedAs = p
	l.parking.streams[s.name] = p
	l.parking.needsOperator = l.parkedNeedsOperator()
	l.schedule(s)
}

// updateParked updates the metrics and nearlyFull.
func (l *loop) updateParked() {
	n, bytes := l.Parked.Size()
	l.metrics.parkedRecords.Set(float64(n))
	l.metrics.parkedBytes.Set(float64(bytes))
	bound := l.Parked.MaxBytes()
	l.parking.nearlyFull = bytes > bound-min(int64(2*maxWrites*l.BatchBytes), bound/2)
}
