// Package queue is a first-in, first-out queue whose elements can be reached by
// their place in it.
package queue

// chunkLen is how many elements are allocated at once: few enough for a queue
// that is short most of the time.
const chunkLen = 512

// Queue holds up to a hundred thousand elements that come at one end and go at the
// other, in chunks: a slice would hold on to what has gone and be copied whenever
// it grows. The zero Queue is empty. It is for one goroutine at a time.
type Queue[T any] struct {
	chunks []*[chunkLen]T
	spare  *[chunkLen]T
	first  int // in chunks[0]
	n      int
}

// Len is the number of elements.
func (q *Queue[T]) Len() int { return q.n }

// At returns the i-th element, which stays where it is until it is dropped.
func (q *Queue[T]) At(i int) *T {
	if i < 0 || i >= q.n {
		panic("queue: index out of range")
	}
	i += q.first
	return &q.chunks[i/chunkLen][i%chunkLen]
}

// Push adds an element at the end.
func (q *Queue[T]) Push(v T) {
	if q.first+q.n == len(q.chunks)*chunkLen {
		if q.spare == nil {
			q.spare = new([chunkLen]T)
		}
		q.chunks = append(q.chunks, q.spare)
		q.spare = nil
	}
	q.n++
	*q.At(q.n - 1) = v
}

// Drop removes the first n elements.
func (q *Queue[T]) Drop(n int) {
	for i := range n {
		*q.At(i) = *new(T) // lets go of what it refers to
	}
	q.first += n
	q.n -= n
	gone := q.first / chunkLen
	if gone == 0 {
		return
	}
	q.spare = q.chunks[0]
	kept := copy(q.chunks, q.chunks[gone:])
	clear(q.chunks[kept:])
	q.chunks = q.chunks[:kept]
	q.first %= chunkLen
}
