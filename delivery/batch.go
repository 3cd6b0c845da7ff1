package delivery

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/delivery/parked"
	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
	"github.com/hindsight-events/hindsight/sink"
)

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

// readAttempts is how often reading a record from the journal may fail in a row
// before the record counts as damaged.
const readAttempts = 5

// fill reads the oldest records of a stream from the journal into its batch: those
// that it had when it was tried before, and as many as a batch may have behind
// them. Its error means that the journal cannot be read, for now.
func (l *loop) fill(s *stream) error {
	b := s.batch
	full := func() bool {
		// A sink can tell a bad record from a bad destination only by others of the
		// same stream.
		return len(b.ends) >= b.count && (b.tries > 0 && !b.grows || len(b.data) >= l.BatchBytes && (!b.grows || len(b.ends) > 1))
	}
	for len(b.ends) < s.len && !full() {
		// What the journal says of the size of a record is near enough.
		l.places = l.places[:0]
		estimate := len(b.data)
		number := l.number(s, len(b.ends))
		more := func(n int) bool {
			return n < b.count || (b.tries == 0 || b.grows) && (estimate < l.BatchBytes || b.grows && n <= 1)
		}
		for n := len(b.ends); n < s.len && more(n); n++ {
			e := l.window.at(number)
			if e.place.Bytes == 0 {
				break
			}
			l.places = append(l.places, e.place)
			estimate += int(e.place.Bytes)
			number += uint64(e.next)
		}
		if len(l.places) == 0 {
			l.add(b, l.kept[number])
			continue
		}
		b.data = slices.Grow(b.data, (estimate-len(b.data))*5/4) // metadata has names
		err := l.Consumer.Read(l.places, func(r *event.Record) {
			if !full() {
				l.add(b, r)
			}
			b.unread = 0
		})
		switch {
		case err == nil, full():
		case !errors.Is(err, journal.ErrDamaged) && b.unread < readAttempts:
			b.unread++
			if len(b.ends) > 0 && len(b.ends) >= b.count {
				return nil
			}
			return fmt.Errorf("read what is to be sent: %w", err)
		default:
			l.lose(s, len(b.ends))
		}
	}
	return nil
}

func (l *loop) add(b *pending, r *event.Record) {
	if b.parking {
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

// number returns that of the n-th entry of a stream.
func (l *loop) number(s *stream, n int) uint64 {
	number := s.first
	for range n {
		number += uint64(l.window.at(number).next)
	}
	return number
}

// lose puts a gap record in the place of the n-th entry of a stream, which cannot
// be read any more. It goes to a stream of its own, unless the sink has been offered
// the entry before, as the n-th of a batch.
func (l *loop) lose(s *stream, n int) {
	number := l.number(s, n)
	e := l.window.at(number)
	gap := l.Consumer.ReplaceWithGap(e.offset)
	s.bytes -= int(e.place.Bytes)
	l.buffered -= int(e.place.Bytes)
	e.place = journal.Location{}
	l.kept[number] = &gap

	to := l.stream(l.Sink.AppendStream(nil, &gap))
	if to == s || n < s.batch.count {
		return
	}
	s.len--
	if n == 0 {
		s.first += uint64(e.next)
	} else {
		before := l.number(s, n-1)
		l.window.at(before).next += e.next
		if number == s.last {
			s.last = before
		}
	}
	e.next = 0
	l.put(to, number, time.Since(l.began))
}

// keptRoom is how large a room may be to be kept: in flight are some, and most
// batches are smaller.
const keptRoom = 128 << 10

// room is memory for a batch.
type room struct {
	data []byte
	ends []int
}

// room returns memory for a batch.
func (l *loop) room() room {
	last := len(l.rooms) - 1
	if last < 0 {
		return room{}
	}
	r := l.rooms[last]
	l.rooms = l.rooms[:last]
	return r
}

// keepRoom keeps memory for others that nobody uses any more.
func (l *loop) keepRoom(r room) {
	if cap(r.data) <= keptRoom {
		l.rooms = append(l.rooms, room{r.data[:0], r.ends[:0]})
	}
}
