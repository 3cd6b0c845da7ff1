package delivery

import (
	"fmt"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/sink"
)

// maxReadFailures is the number of consecutive failures to read a record from the
// journal again after which the delivery ends. A record that is damaged by then becomes a
// gap when the journal is read after the restart.
const maxReadFailures = 5

// batch holds the oldest records of a stream once an attempt to send them was started.
// The sink may have accepted some of them, so the next attempts begin with the same
// records.
type batch struct {
	buffer     // the encoded records; empty while the stream is in backoff
	count  int // of the stream's oldest entries, those in the batch
	stream *stream

	attempts     int
	firstAttempt time.Time
	grows        bool  // records may be added at its end
	gaps         []int // indices of the gap records
	completed    bool

	toPark bool            // it is written to a queue
	parked []parked.Record // it was read from a queue
}

// buffer is memory for a batch.
type buffer struct {
	data []byte
	ends []int
}

// len returns 0 for nil.
func (b *batch) len() int {
	if b == nil {
		return 0
	}
	return b.count
}

// contents returns the batch as the sink receives it.
func (b *batch) contents() sink.Batch {
	return sink.Batch{Stream: b.stream.name, Data: b.data, Ends: b.ends}
}

// full reports whether a batch of so many records and bytes must not grow further.
func (b *batch) full(records, bytes, limit int) bool {
	switch {
	case records < b.count:
		return false // they belong to the last attempt
	case b.grows:
		// A second record of the stream shows the sink whether the first one or the
		// stream is at fault.
		return bytes >= limit && records > 1
	default:
		return b.attempts > 0 || bytes >= limit
	}
}

// buildBatch reads the oldest records of a stream from the journal into its batch: the
// records of the last attempt, then further ones if the batch may grow. An error means
// that the journal cannot be read at present.
func (l *loop) buildBatch(s *stream) error {
	b := s.batch
	full := func() bool { return b.full(len(b.ends), len(b.data), l.BatchBytes) }
	for len(b.ends) < s.len && !full() {
		number := l.entryAt(s, len(b.ends))
		if r := l.window.unstored[number]; r != nil {
			l.encode(b, r)
			continue
		}
		// The size of a record in the journal is close to its size in the batch.
		l.locations = l.locations[:0]
		size := len(b.data)
		for n := len(b.ends); n < s.len && l.window.unstored[number] == nil && !b.full(n, size, l.BatchBytes); n++ {
			e := l.window.at(number)
			l.locations = append(l.locations, e.location)
			size += int(e.location.Bytes)
			number += uint64(e.next)
		}
		b.data = slices.Grow(b.data, (size-len(b.data))*5/4) // encoding adds field names
		err := l.Consumer.Read(l.locations, func(r *event.Record) {
			if !full() {
				l.encode(b, r)
			}
			s.readFailures = 0
		})
		if err == nil || full() {
			continue
		}
		if len(b.ends) > 0 && len(b.ends) >= b.count {
			return nil
		}
		err = fmt.Errorf("read records to send: %w", err)
		if s.readFailures++; s.readFailures == maxReadFailures {
			l.journalErr = err
		}
		return err
	}
	return nil
}

// encode adds a record to a batch.
func (l *loop) encode(b *batch, r *event.Record) {
	if b.toPark {
		b.data, _ = r.AppendBinary(b.data) // it never fails
	} else {
		b.data = l.Sink.AppendRecord(b.data, r)
	}
	if r.Gap {
		b.gaps = append(b.gaps, len(b.ends))
	}
	b.ends = append(b.ends, len(b.data))
	b.count = max(b.count, len(b.ends))
}

// maxFreeBuffer is the size up to which a buffer is reused. Most batches are smaller.
const maxFreeBuffer = 128 << 10

// newBuffer returns memory for a batch.
func (l *loop) newBuffer() buffer {
	last := len(l.freeBuffers) - 1
	if last < 0 {
		return buffer{}
	}
	b := l.freeBuffers[last]
	l.freeBuffers = l.freeBuffers[:last]
	return b
}

// freeBuffer keeps a buffer for another batch.
func (l *loop) freeBuffer(b buffer) {
	if cap(b.data) <= maxFreeBuffer {
		l.freeBuffers = append(l.freeBuffers, buffer{b.data[:0], b.ends[:0]})
	}
}
