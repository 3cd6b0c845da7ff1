package sink

import (
	"container/heap"
	"time"

	"github.com/grafana/loki-client-go/pkg/backoff"
)

// stream holds the batches of one stream that have not been settled.
type stream struct {
	name     string
	batches  []*pending // oldest first
	inFlight bool       // the first of them
	rested   time.Time  // until when the stream is left alone
	retry    *backoff.Backoff
	outage   outage
	index    int // in the queue; -1: not queued
}

// pending is a batch that is being filled or sent.
type pending struct {
	stream  string
	data    [][]byte  // the records, in blocks
	ends    []int     // where each of them ends
	numbers []uint64  // of its records, in the window
	opened  time.Time // when its first record came
	full    bool
	tries   int
	tried   time.Time // for the first time
	grows   bool      // although it has been tried
	settled bool
}

// due is when the stream's first batch should be sent: at once if it is full or
// has been tried before.
func (s *stream) due(wait time.Duration) time.Time {
	b := s.batches[0]
	at := b.opened
	if !b.full && b.tries == 0 {
		at = at.Add(wait)
	}
	if s.rested.After(at) {
		return s.rested
	}
	return at
}

// room returns the batch that takes further records, nil if a new one is needed:
// what is in flight must stay as it is, and so must what has been tried, unless
// it may grow.
func (s *stream) room(bytes int) *pending {
	if len(s.batches) == 0 {
		return nil
	}
	b := s.batches[len(s.batches)-1]
	if s.inFlight && len(s.batches) == 1 || b.tries > 0 && !b.grows || b.size() >= bytes {
		return nil
	}
	return b
}

func (b *pending) len() int { return len(b.ends) }

// size is how many bytes its records have.
func (b *pending) size() int {
	if len(b.ends) == 0 {
		return 0
	}
	return b.ends[len(b.ends)-1]
}

// batch returns it as it is sent, in room.
func (b *pending) batch(room []byte) Batch {
	for _, block := range b.data {
		room = append(room, block...)
	}
	return Batch{Stream: b.stream, Data: room, Ends: b.ends}
}

// grow adds further records to the first batch, which was tried and is not in
// flight: a sink can tell a bad record from a bad destination only by others of
// the same stream.
func (s *stream) grow(bytes int, blocks *blocks) {
	b := s.batches[0]
	b.grows = true
	for len(s.batches) > 1 && (b.size() < bytes || b.len() == 1) {
		next := s.batches[1]
		all := next.batch(nil)
		n := 0
		for n < next.len() && (b.size() < bytes || b.len() == 1) {
			b.data = blocks.add(b.data, all.Record(n))
			b.ends = append(b.ends, b.size()+len(all.Record(n)))
			n++
		}
		b.numbers = append(b.numbers, next.numbers[:n]...)
		blocks.release(next.data)
		if n == next.len() {
			s.batches = append(s.batches[:1], s.batches[2:]...)
			continue
		}
		moved := all.Ends[n-1]
		next.data = blocks.add(nil, all.Data[moved:])
		next.ends, next.numbers = next.ends[n:], next.numbers[n:]
		for i := range next.ends {
			next.ends[i] -= moved
		}
	}
}

// queue holds the streams that have something to send and are not being sent,
// the one that is due first at its head.
type queue struct {
	wait    time.Duration
	streams []*stream
}

func (q *queue) put(s *stream) {
	if s.index < 0 {
		heap.Push(q, s)
	} else {
		heap.Fix(q, s.index)
	}
}

func (q *queue) pop() *stream { return heap.Pop(q).(*stream) }

// The methods of heap.Interface.

func (q *queue) Len() int { return len(q.streams) }

func (q *queue) Less(i, j int) bool {
	a, b := q.streams[i], q.streams[j]
	if c := a.due(q.wait).Compare(b.due(q.wait)); c != 0 {
		return c < 0
	}
	return a.batches[0].numbers[0] < b.batches[0].numbers[0] // the older record
}

func (q *queue) Swap(i, j int) {
	q.streams[i], q.streams[j] = q.streams[j], q.streams[i]
	q.streams[i].index, q.streams[j].index = i, j
}

func (q *queue) Push(x any) {
	s := x.(*stream)
	s.index = len(q.streams)
	q.streams = append(q.streams, s)
}

func (q *queue) Pop() any {
	last := len(q.streams) - 1
	s := q.streams[last]
	q.streams[last] = nil
	q.streams = q.streams[:last]
	s.index = -1
	return s
}
