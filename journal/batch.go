package journal

import (
	"maps"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// batch is a group of requests with its place in the log.
type batch struct {
	chunks  [][]byte
	size    int64
	next    uint64 // offset after it
	frames  uint32
	time    time.Time
	tail    map[string]event.Position
	pending map[string]event.Record // after it
}

// stage gives a group its place. Nothing has changed until it is published.
func (j *Journal) stage(w *writer, group []*request) (*batch, error) {
	b := &batch{
		next:    j.offset(),
		time:    time.Now(),
		tail:    make(map[string]event.Position),
		pending: maps.Clone(w.pending),
	}
	for _, r := range group {
		var before []byte
		for source := range r.addressed {
			if p, ok := b.pending[source]; ok {
				var err error
				if before, err = appendFrame(before, &p); err != nil {
					return nil, err
				}
			}
		}
		b.add(before)
		b.add(*r.frames)
		for source, position := range r.tail {
			b.tail[source] = position
			delete(b.pending, source)
		}
		if len(r.trailing) > 0 && b.pending == nil {
			b.pending = make(map[string]event.Record, len(r.trailing))
		}
		maps.Copy(b.pending, r.trailing)
	}
	return b, nil
}

func (b *batch) add(frames []byte) {
	if len(frames) == 0 {
		return
	}
	b.next, b.frames = stampFrames(frames, b.next, b.frames, b.time.UnixNano())
	b.chunks = append(b.chunks, frames)
	b.size += int64(len(frames))
}
