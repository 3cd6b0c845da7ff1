package journal

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/hindsight-events/hindsight/event"
)

// request is one Append, encoded by its caller.
type request struct {
	ctx    context.Context
	frames *[]byte // without offsets and times; see stampFrames
	count  int     // records among them

	// tail is where the request leaves the sources it moves. trailing are
	// those of them that end with a position alone: it is not among the frames.
	tail     map[string]event.Position
	trailing map[string]event.Record

	// addressed are the sources whose first frame is for one consumer alone:
	// what is still to be written for the source comes before it.
	addressed map[string]bool

	done chan error // of capacity one
}

// framesPool keeps what requests are encoded into: at 50,000 records a second
// that is 50 MB a second otherwise.
var framesPool = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is how much of it is kept: a long list comes in large groups once.
const maxPooled = 2 << 20

func newRequest(ctx context.Context, records []event.Record) (*request, error) {
	r := &request{
		ctx:    ctx,
		frames: framesPool.Get().(*[]byte),
		tail:   make(map[string]event.Position, 1),
		done:   make(chan error, 1),
	}
	b := (*r.frames)[:0]
	var err error
	for i := range records {
		rec := &records[i]
		_, seen := r.tail[rec.Source]
		if rec.OnlySink == "" {
			r.tail[rec.Source] = rec.Position
			if rec.PositionOnly() {
				// Only the last of them matters, and none that a record follows.
				if r.trailing == nil {
					r.trailing = make(map[string]event.Record, 1)
				}
				r.trailing[rec.Source] = *rec
				continue
			}
		} else if before, ok := r.trailing[rec.Source]; ok {
			if b, err = appendFrame(b, &before); err != nil {
				break
			}
		} else if !seen {
			if r.addressed == nil {
				r.addressed = make(map[string]bool, 1)
			}
			r.addressed[rec.Source] = true
		}
		delete(r.trailing, rec.Source)
		if b, err = appendFrame(b, rec); err != nil {
			break
		}
		if !rec.PositionOnly() {
			r.count++
		}
	}
	*r.frames = b
	if err != nil {
		r.release()
		return nil, fmt.Errorf("append to journal: %w", err)
	}
	return r, nil
}

// release gives back what the request was encoded into.
func (r *request) release() {
	if cap(*r.frames) <= maxPooled {
		framesPool.Put(r.frames)
	}
	r.frames = nil
}

// appendFrame adds a record, or a position, in a frame that has no offset yet.
func appendFrame(b []byte, r *event.Record) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, frameHead)...)
	b, err := r.AppendBinary(b)
	if err != nil {
		return b[:start], err
	}
	length := len(b) - start - frameHead
	if length > maxPayload {
		return b[:start], fmt.Errorf("record of %d bytes is larger than %d", length, maxPayload)
	}
	head := b[start:]
	copy(head, magicRecord)
	if r.PositionOnly() {
		copy(head, magicPosition)
	}
	binary.LittleEndian.PutUint32(head[4:], uint32(length))
	binary.LittleEndian.PutUint32(head[28:], crc32.Checksum(head[frameHead:], castagnoli))
	return b, nil
}

// stampFrames gives frames their place and time. It returns the offset of the
// next record and the index of the next frame after them.
func stampFrames(b []byte, next uint64, index uint32, at int64) (uint64, uint32) {
	for len(b) > 0 {
		n := frameHead + int(binary.LittleEndian.Uint32(b[4:]))
		binary.LittleEndian.PutUint64(b[8:], next)
		binary.LittleEndian.PutUint64(b[16:], uint64(at))
		binary.LittleEndian.PutUint32(b[24:], index)
		binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
		if string(b[:4]) == magicRecord {
			next++
		}
		index++
		b = b[n:]
	}
	return next, index
}
