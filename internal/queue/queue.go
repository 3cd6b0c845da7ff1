// Package queue is a first-in, first-out queue with random access.
package queue

// chunkLen is the number of elements allocated at once, small because most queues are short.
const chunkLen = 128

// Queue keeps its elements in chunks: unlike a slice, it frees dropped elements and copies none when
// it grows. The zero Queue is empty. It is for one goroutine at a time.
type Queue[T any] struct {
	chunks []*[chunkLen]T
	spare  *[chunkLen]T
	first  int // in chunks[0]
	n      int
}

// Len is the number of elements.
func (q *Queue[T]) Len() int { return q.n }

// At returns the i-th element. The pointer is valid until the element is dropped.
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
		*q.At(i) = *new(T) // frees its references
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
