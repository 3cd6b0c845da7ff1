package delivery

import (
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
)

// stream holds the incomplete entries of one stream, as a linked list in the window.
type stream struct {
	name         string
	first, last  uint64 // numbers of the oldest and the newest
	len          int
	bytes        int           // in the journal
	waitingSince time.Duration // arrival of the oldest entry that is in no batch, or earlier, since the loop began
	sendBy       time.Duration // when an entry that is in no batch has waited long enough, or earlier

	batch     *batch // of the oldest entries, after its first attempt
	inFlight  bool
	notBefore time.Time // of the next attempt
	failure   *failure  // nil unless the last attempt failed

	readFailures int // consecutive failures to read the next record for a batch

	// A parked stream has two of these structs: the source, with entries to write to the
	// queue, and the parked one, which is sent from the queue.
	parkedAs *stream       // of the source
	queue    *parked.Queue // of the parked one

	due   time.Duration // when to send, since the loop began; while it is in a dueQueue
	index int           // in the dueQueue; -1: in none
}

// stream returns the stream with that name.
func (l *loop) stream(name []byte) *stream {
	s := l.streams[string(name)]
	if s == nil {
		s = &stream{name: string(name), index: -1}
		s.parkedAs = l.parking.streams[s.name]
		l.streams[s.name] = s
	}
	return s
}

// appendEntry adds an entry to a stream.
func (l *loop) appendEntry(s *stream, number uint64, now, sendBy time.Duration) {
	earlier := sendBy < s.sendBy
	if s.len == s.batch.len() {
		s.waitingSince, s.sendBy = now, sendBy
	} else {
		s.sendBy = min(s.sendBy, sendBy)
	}
	if s.len == 0 {
		s.first = number
	} else {
		l.window.at(s.last).next = int32(number - s.last)
	}
	s.last = number
	s.len++
	bytes := int(l.window.at(number).location.Bytes)
	fills := s.bytes < l.BatchBytes && s.bytes+bytes >= l.BatchBytes
	s.bytes += bytes
	l.pendingBytes += bytes
	if !s.inFlight && (s.index < 0 || fills || earlier) {
		l.schedule(s)
	}
}

// entryAt returns the number of the n-th entry of a stream.
func (l *loop) entryAt(s *stream, n int) uint64 {
	number := s.first
	for range n {
		number += uint64(l.window.at(number).next)
	}
	return number
}

// schedule puts a stream that is not in flight into the queue it is sent from.
func (l *loop) schedule(s *stream) {
	due := s.waitingSince
	switch {
	case s.queue != nil:
		due = 0
	case s.failure != nil:
		due = s.failure.at // behind streams that have waited since before
	case s.batch == nil && s.bytes < l.BatchBytes:
		due = s.sendBy
	}
	q := &l.queue
	switch {
	case s.parkedAs != nil:
		if !l.parksMore(s) {
			return
		}
		q = &l.parking.sources
	case s.queue != nil, s.failure != nil && s.failure.ownFault:
		q = &l.faulty
	}
	q.put(s, max(due, s.notBefore.Sub(l.began)))
}

// completeEntries completes the first n entries of a stream.
func (l *loop) completeEntries(s *stream, n int, now time.Time) error {
	for range n {
		bytes := int(l.window.at(s.first).location.Bytes)
		s.first = l.window.complete(s.first)
		s.len--
		s.bytes -= bytes
		l.pendingBytes -= bytes
	}
	if s.len > 0 {
		l.schedule(s)
	} else {
		l.setIdle(s, now)
	}
	return l.acknowledge()
}

// ackInterval is how long acknowledgements are collected while batches of other streams are in
// flight. Each moves the journal's cursor, which is a write of a file.
const ackInterval = 100 * time.Millisecond

// acknowledge advances the journal's cursor: at once if no other batch is in flight or if there is
// never another one, so that a killed process repeats at most one batch; else within ackInterval.
func (l *loop) acknowledge() error {
	if offset, moved := l.window.advance(); moved {
		l.ackOffset = offset
		if l.ackBy.IsZero() {
			l.ackBy = time.Now().Add(ackInterval)
		}
	}
	inFlight := l.inFlight.batches + l.faultyInFlight.batches
	if l.Concurrency == 1 || inFlight == 0 || !time.Now().Before(l.ackBy) {
		return l.writeAck()
	}
	return nil
}

// writeAck moves the journal's cursor to what has been acknowledged.
func (l *loop) writeAck() error {
	if l.ackBy.IsZero() {
		return nil
	}
	l.ackBy = time.Time{}
	if err := l.Consumer.Ack(l.ackOffset); err != nil {
		return fmt.Errorf("acknowledge to journal: %w", err)
	}
	return nil
}

// setIdle removes a stream without entries after its delay has passed.
func (l *loop) setIdle(s *stream, now time.Time) {
	l.idle = append(l.idle, s)
	for len(l.idle) > 0 && !l.idle[0].notBefore.After(now) {
		if s := l.idle[0]; s.len == 0 && l.streams[s.name] == s { // it may be in idle twice
			delete(l.streams, s.name)
		}
		l.idle = l.idle[1:]
	}
}
