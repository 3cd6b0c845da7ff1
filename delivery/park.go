package delivery

import (
	"slices"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"
)

const (
	// parkAfter is how long a stream may be refused while others are accepted, before
	// its records are parked so that the journal can be acknowledged.
	parkAfter = time.Minute

	// parkAfterFull is the same if other streams have to wait for the refused one.
	parkAfterFull = 10 * time.Second

	// holdFor is for how long no stream that is not parked may have failed before more
	// is parked than the bound allows, and the oldest is given up; and for
	// maxParkedBackoff none that is parked may have been accepted. A destination that
	// is overloaded refuses attempts of all streams, and accepts some: then records wait
	// in the journal.
	holdFor = 15 * time.Second

	// holdFailures is after how many failures in a row, some minute, a stream is none
	// of those: it may have to be parked itself.
	holdFailures = 7

	// parkFlight is the number of batches that are parked at the same time: each
	// waits for the disk.
	parkFlight = 4

	// maxParkedBackoff bounds the pause between attempts of a parked stream. All are
	// tried at once when one of them is accepted again.
	maxParkedBackoff = time.Minute

	// leaveAfter is the number of attempts to send parked records at the end of a
	// delivery that has a store of its own, which ends with it.
	leaveAfter = 3

	// maxParkedAge is how long a record may be parked. By default Loki refuses older
	// ones.
	maxParkedAge = 7 * 24 * time.Hour
)

// parking is the state of a loop for parked streams.
type parking struct {
	streams map[string]*stream // the halves that have a queue, by name
	toPark  dueQueue           // the other halves, that have records to park
	writing flight
	checked time.Time // when parkOverdue last ran
	full    bool      // nearly as much is parked as may be
	others  time.Time // when a stream failed last that is not parked
	mended  time.Time // when a parked stream was accepted last
	mend    error     // see State
	err     error     // of the last attempt of a parked stream that failed; nil if none is parked
	retry   *backoff.Backoff

	giveUp   sync.Mutex // held while records are given up; guards exceeded
	exceeded bool       // the bound was exceeded, which has been logged
}

// pressed reports whether the journal or the window is about to be full of records that
// wait for the oldest one.
func (l *loop) pressed() bool { return l.full() || l.window.bytes >= 2*l.WindowBytes }

// parkOverdue parks the streams that have been refused for too long, and returns
// when to look again.
func (l *loop) parkOverdue(now time.Time) (next time.Time) {
	const every = time.Second
	if len(l.failing) == 0 {
		return now.Add(time.Hour)
	}
	if next := l.parking.checked.Add(every); next.After(now) {
		return next
	}
	l.parking.checked = now
	if l.holds(now) {
		return now.Add(every)
	}
	// At the end of a delivery that leaves nothing in the journal, no more records come.
	after, pressed := parkAfter, l.pressed() || l.drained && l.ownParked
	if pressed {
		after = parkAfterFull
	}
	nothingElse := pressed && l.nothingElse()
	for s := range l.failing {
		f := s.failing
		// If there is nothing else to try, an acceptance since the first failure has to
		// suffice.
		others := l.lastAccepted > f.last || nothingElse && l.lastAccepted > f.first
		if others {
			f.noteOthers(now)
		}
		// It was refused after others had been accepted, or asked for a pause that
		// long.
		alone := f.alone || s.rested.After(now) || nothingElse
		if !s.inFlight && alone && !f.since.IsZero() && now.Sub(f.since) >= after && (others || f.lately || pressed) {
			l.park(s)
		}
	}
	return now.Add(every)
}

// nothingElse reports whether all waiting streams have been refused while most of the
// window was accepted, unlike in an outage of the destination.
func (l *loop) nothingElse() bool {
	return l.flight.batches == 0 && l.buffered < l.window.bytes/2 && !slices.ContainsFunc(l.queue, func(s *stream) bool { return s.failing == nil })
}

// park redirects the records of a stream to a queue of its own, from which they are
// sent.
func (l *loop) park(s *stream) {
	l.queue.remove(s)
	l.aside.remove(s)
	if len(l.parking.streams) == 0 && l.parking.retry == nil {
		l.Logger.Warn("a stream is refused while others are accepted; its records are parked and sent once it is accepted again",
			"stream", s.name, "records", s.len, "failed_attempts", s.failing.failures, "err", s.failing.err)
	}
	q := &stream{name: s.name, index: -1, queue: l.Parked.Queue(s.name), failing: s.failing, rested: s.rested}
	q.failing.alone, q.failing.retry, q.failing.failures = true, nil, 0 // with a longer backoff
	if s.batch != nil {
		// The sink may have accepted a part of it: it is sent first, unchanged.
		q.batch = &pending{stream: q, count: s.batch.count, tries: s.batch.tries, grows: true, gaps: s.batch.gaps}
		s.batch.settled = true
		l.keepRoom(s.batch.room)
	}
	l.parking.err = s.failing.err
	delete(l.failing, s)
	s.batch, s.failing, s.rested = nil, nil, time.Time{}
	s.parked = q
	l.parking.streams[s.name] = q
	l.parking.mend = l.toMend()
	l.enqueue(s)
}

// holds reports whether nothing more is parked, since something would be given up
// that may still be accepted.
func (l *loop) holds(now time.Time) bool {
	return l.parking.full && (l.failures > 0 ||
		now.Sub(l.parking.others) < holdFor || now.Sub(l.parking.mended) < maxParkedBackoff)
}

func (l *loop) countParked() {
	n, bytes := l.Parked.Size()
	l.metrics.parkedRecords.Set(float64(n))
	l.metrics.parkedBytes.Set(float64(bytes))
	bound := l.Parked.MaxBytes()
	l.parking.full = bytes > bound-min(int64(2*parkFlight*l.BatchBytes), bound/2)
}
