package delivery

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
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

// resumeParked resumes the streams that an earlier delivery parked.
func (l *loop) resumeParked() error {
	for _, q := range l.Parked.Queues() {
		if err := l.sortParked(q); err != nil {
			return err
		}
	}
	for _, q := range l.Parked.Queues() {
		s := &stream{name: q.Name(), index: -1, queue: q}
		l.parking.streams[s.name] = s
		l.enqueue(s)
	}
	if n, _ := l.Parked.Size(); n > 0 {
		l.Logger.Info("resuming parked records", "records", n, "streams", len(l.parking.streams))
	}
	l.countParked()
	return nil
}

// sortParked moves the records of a queue to the queues of the streams that they
// belong to now, if the configuration has changed that.
func (l *loop) sortParked(q *parked.Queue) error {
	var reader event.Reader
	records, err := q.Front(1, 0)
	if err != nil || len(records) == 0 {
		return nil // sending it reports the damage
	}
	if r, err := reader.Read(records[0].Data); err != nil || string(l.Sink.AppendStream(nil, r)) == q.Name() {
		return nil
	}
	// Those that stay, since they belong to it or cannot be decoded, are added again
	// at its end.
	for left := q.Len(); left > 0; {
		records, err := q.Front(1, l.BatchBytes)
		if err != nil {
			return nil
		}
		records = records[:min(len(records), left)]
		left -= len(records)
		for _, p := range records {
			name := q.Name()
			if r, err := reader.Read(p.Data); err == nil {
				name = string(l.Sink.AppendStream(nil, r))
			}
			if err := l.Parked.Queue(name).Append(p.Data, []int{len(p.Data)}, p.Parked); err != nil {
				return err
			}
		}
		if err := q.Drop(records); err != nil {
			return err
		}
	}
	_, err = q.Remove()
	return err
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

// parks reports whether further records of a parked stream go to its queue. They wait
// in the journal while the queue is about to become empty, so that parking can end.
func (l *loop) parks(s *stream) bool {
	q := s.parked
	return q.failing != nil || q.queue.Bytes() > int64(l.BatchBytes) || q.queue.Len() == 0 && !q.inFlight
}

// holds reports whether nothing more is parked, since something would be given up
// that may still be accepted.
func (l *loop) holds(now time.Time) bool {
	return l.parking.full && (l.failures > 0 ||
		now.Sub(l.parking.others) < holdFor || now.Sub(l.parking.mended) < maxParkedBackoff)
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

// fillParked reads the oldest records of a queue into a batch: the records of its
// earlier attempt, and as many after them as a batch may have. It gives up records that
// are damaged or too old. An error means that the queue cannot be read for now.
func (l *loop) fillParked(b *pending) error {
	q := b.stream.queue
	b.data, b.ends, b.gaps, b.parked = b.data[:0], b.ends[:0], nil, nil
	for {
		records, err := q.Front(max(b.count, 1), l.BatchBytes)
		switch {
		case errors.Is(err, parked.ErrDamaged):
			l.loseParked(q, err)
			return nil
		case err != nil:
			return err
		}
		old := 0
		for old < len(records) && time.Since(records[old].Parked) > maxParkedAge {
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

// toMend returns the error of parked streams that a person has to fix, or nil.
func (l *loop) toMend() error {
	for _, s := range l.parking.streams {
		if s.failing == nil {
			continue
		}
		err := s.failing.err
		if gap := s.batch != nil && len(s.batch.gaps) > 0; gap || streamNeedsMending(err) {
			return fmt.Errorf("%d streams are refused, their records are parked; one of them is %s: %w", len(l.parking.streams), s.name, err)
		}
	}
	return nil
}

// gapRefused records that the destination refused a gap record.
func (l *loop) gapRefused(stream, reason string) {
	l.gapErr = fmt.Errorf("a gap record was refused for good and is missing from stream %s: %s", stream, reason)
}

func (l *loop) countParked() {
	n, bytes := l.Parked.Size()
	l.metrics.parkedRecords.Set(float64(n))
	l.metrics.parkedBytes.Set(float64(bytes))
	bound := l.Parked.MaxBytes()
	l.parking.full = bytes > bound-min(int64(2*parkFlight*l.BatchBytes), bound/2)
}
