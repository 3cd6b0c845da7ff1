package delivery

import (
	"container/heap"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/sink"
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

// pending is a batch that has been tried. A sink may have accepted a part of it, so
// until it is settled, records are only added at its end.
type pending struct {
	room        // the records, as they are sent; empty while the stream rests
	count   int // of the stream's oldest entries, those in it
	stream  *stream
	tries   int
	tried   time.Time // of the first attempt
	unread  int       // failures in a row to read the next record
	grows   bool      // records may be added at its end
	gaps    []int     // which of them are gap records
	settled bool

	parking bool            // it goes into the queue
	parked  []parked.Record // it comes from the queue
}

// len returns 0 for nil.
func (b *pending) len() int {
	if b == nil {
		return 0
	}
	return b.count
}

func (b *pending) batch() sink.Batch {
	return sink.Batch{Stream: b.stream.name, Data: b.data, Ends: b.ends}
}

// dueQueue holds the streams that have records to send and are not being sent,
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
