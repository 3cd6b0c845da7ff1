package delivery

import (
	"container/heap"
	"time"
)

// dueQueue holds the streams that have records to send and are not in flight. The
// head is due first.
type dueQueue []*stream

// put adds a stream, or changes when it is due.
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
