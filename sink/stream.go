package sink

import (
	"container/heap"
	"time"

	"github.com/hindsight-events/hindsight/internal/parked"
)

// stream is the entries of one stream that have not been settled, as a list
// through the window.
type stream struct {
	name        string
	first, last uint64 // numbers of the oldest and the newest
	len         int
	bytes       int           // in the journal
	opened      time.Duration // since the loop began: when the oldest of those came that are in no batch, or before

	batch    *pending // of the oldest, once it has been tried
	inFlight bool
	rested   time.Time // until when the stream is left alone
	failing  *failing  // nil unless its last attempt failed

	// A stream that is parked has two halves: what comes from the journal goes into
	// the queue of its other half, and from there to the sink.
	parked *stream
	queue  *parked.Queue // of the other half

	due   time.Duration // when to send, since the loop began; while it is queued
	index int           // in the queue; -1: not queued
}

// pending is a batch that has been tried. Its records stay the same until it is
// settled, but for further ones at the end: a sink may have accepted a part of it.
type pending struct {
	room        // the records, as they are sent; empty while the stream rests
	count   int // of the stream's oldest entries, those in it
	stream  *stream
	tries   int
	tried   time.Time // for the first time
	unread  int       // failures in a row to read the next record
	grows   bool      // further records may be added, at its end
	gaps    []int     // which of them are gap records
	settled bool

	parking bool            // it goes into the queue
	parked  []parked.Record // it comes from the queue
}

// len is that of no batch, too.
func (b *pending) len() int {
	if b == nil {
		return 0
	}
	return b.count
}

func (b *pending) batch() Batch { return Batch{Stream: b.stream.name, Data: b.data, Ends: b.ends} }

// dueQueue holds the streams that have something to send and are not being sent,
// the one that is due first at its head.
type dueQueue []*stream

func (q *dueQueue) put(s *stream, due time.Duration) {
	before := s.due
	s.due = due
	switch {
	case s.index < 0:
		heap.Push(q, s)
	case due != before:
		heap.Fix(q, s.index)
	}
}

func (q *dueQueue) pop() *stream { return heap.Pop(q).(*stream) }

// remove removes a stream if it is in this queue.
func (q *dueQueue) remove(s *stream) {
	if s.index >= 0 && s.index < len(*q) && (*q)[s.index] == s {
		heap.Remove(q, s.index)
	}
}

// The methods of heap.Interface.

func (q dueQueue) Len() int { return len(q) }

func (q dueQueue) Less(i, j int) bool {
	if q[i].due != q[j].due {
		return q[i].due < q[j].due
	}
	return q[i].first < q[j].first // the older record
}

func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *dueQueue) Push(x any) {
	s := x.(*stream)
	s.index = len(*q)
	*q = append(*q, s)
}

func (q *dueQueue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.index = -1
	return s
}
