package delivery

import (
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
)

// stream holds the entries of one stream that have not been settled, as a linked list
// in the window.
type stream struct {
	name        string
	first, last uint64 // numbers of the oldest and the newest
	len         int
	bytes       int           // in the journal
	opened      time.Duration // since the loop began: arrival of the oldest entry that is in no batch, or earlier

	batch    *pending // of the oldest, once it has been tried
	inFlight bool
	rested   time.Time // no attempt before
	failing  *failing  // nil unless its last attempt failed

	// A parked stream has two halves: records from the journal go into the queue of
	// the other half, and from there to the sink.
	parked *stream
	queue  *parked.Queue // of the other half

	due   time.Duration // when to send, since the loop began; while it is queued
	index int           // in the queue; -1: not queued
}

// stream returns the stream of a name.
func (l *loop) stream(name []byte) *stream {
	s := l.streams[string(name)]
	if s == nil {
		s = &stream{name: string(name), index: -1}
		s.parked = l.parking.streams[s.name]
		l.streams[s.name] = s
	}
	return s
}

// put adds an entry to a stream.
func (l *loop) put(s *stream, number uint64, now time.Duration) {
	if s.len == s.batch.len() {
		s.opened = now
	}
	if s.len == 0 {
		s.first = number
	} else {
		l.window.at(s.last).next = int32(number - s.last)
	}
	s.last = number
	s.len++
	bytes := int(l.window.at(number).place.Bytes)
	fills := s.bytes < l.BatchBytes && s.bytes+bytes >= l.BatchBytes
	s.bytes += bytes
	l.buffered += bytes
	if !s.inFlight && (s.index < 0 || fills) {
		l.enqueue(s)
	}
}

// enqueue says when a stream that is not in flight is to be sent: at once if
// there is enough for a batch, or if it has been tried before.
func (l *loop) enqueue(s *stream) {
	due := s.opened
	switch {
	case s.queue != nil:
		due = 0
	case s.failing != nil:
		due = s.failing.at // behind those that wait since before
	case s.batch == nil && s.bytes < l.BatchBytes:
		due += l.BatchWait
	}
	q := &l.queue
	switch {
	case s.parked != nil:
		if !l.parks(s) {
			return
		}
		q = &l.parking.toPark
	case s.queue != nil, s.failing != nil && s.failing.alone:
		q = &l.aside
	}
	q.put(s, max(due, s.rested.Sub(l.began)))
}

// forget lets go of a stream without batches once it has rested.
func (l *loop) forget(s *stream, now time.Time) {
	l.resting = append(l.resting, s)
	for len(l.resting) > 0 && !l.resting[0].rested.After(now) {
		if s := l.resting[0]; s.len == 0 && l.streams[s.name] == s { // it may rest twice
			delete(l.streams, s.name)
		}
		l.resting = l.resting[1:]
	}
}
