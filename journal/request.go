package journal

import (
	"context"
	"fmt"
	"sync"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// request is one Append, encoded by its caller.
type request struct {
	ctx    context.Context
	frames *[]byte // to be stamped

	// tail is the position after the request of each source in it. trailing are the records
	// without an Event that are last of their source; they are not in frames.
	tail     map[string]event.Position
	trailing map[string]event.Record

	// addressed are the sources whose first frame is for one consumer. A pending position of
	// such a source must be written before it.
	addressed map[string]bool

	done chan error // of capacity one
}

// framesPool reuses the buffers of requests: at 50,000 records a second they are 50 MB a second.
var framesPool = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled bounds a reused buffer; a long list has a few larger ones.
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
		if b, err = r.appendRecord(b, &records[i]); err != nil {
			break
		}
	}
	*r.frames = b
	if err != nil {
		r.release()
		return nil, fmt.Errorf("append to journal: %w", err)
	}
	return r, nil
}

func (r *request) appendRecord(b []byte, rec *event.Record) ([]byte, error) {
	var err error
	_, seen := r.tail[rec.Source]
	if rec.OnlySink == "" {
		r.tail[rec.Source] = rec.Position
		if rec.PositionOnly() {
			// Only the last position of a source matters, and only if no record follows.
			if r.trailing == nil {
				r.trailing = make(map[string]event.Record, 1)
			}
			r.trailing[rec.Source] = *rec
			return b, nil
		}
	} else if before, ok := r.trailing[rec.Source]; ok {
		if b, err = storage.AppendFrame(b, &before); err != nil {
			return b, err
		}
	} else if !seen {
		if r.addressed == nil {
			r.addressed = make(map[string]bool, 1)
		}
		r.addressed[rec.Source] = true
	}
	delete(r.trailing, rec.Source)
	return storage.AppendFrame(b, rec)
}

// release returns the buffer to the pool.
func (r *request) release() {
	if cap(*r.frames) <= maxPooled {
		framesPool.Put(r.frames)
	}
	r.frames = nil
}
