package journal

import (
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// batch is a group of requests, stamped with offsets. Nothing has changed until it is published.
type batch struct {
	frames  [][]byte
	size    int64
	next    uint64 // offset after the batch
	index   uint32 // of the next frame
	time    time.Time
	tail    map[string]event.Position
	pending map[string]event.Record // after the batch
}

func newBatch(next uint64) *batch { return &batch{next: next, time: time.Now()} }

// assemble makes a batch of requests.
func (w *writer) assemble(group []*request) (*batch, error) {
	b := newBatch(w.j.nextOffset())
	b.tail = make(map[string]event.Position)
	b.pending = maps.Clone(w.pending)
	for _, r := range group {
		for source := range r.addressed {
			if err := b.addPosition(source, b.pending); err != nil {
				return nil, err
			}
		}
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

// assemblePending makes a batch of the positions that wait for a record.
func (w *writer) assemblePending() (*batch, error) {
	b := newBatch(w.j.nextOffset())
	for _, source := range slices.Sorted(maps.Keys(w.pending)) {
		if err := b.addPosition(source, w.pending); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// addPosition adds the pending position of a source, if it has one.
func (b *batch) addPosition(source string, pending map[string]event.Record) error {
	p, ok := pending[source]
	if !ok {
		return nil
	}
	frame, err := storage.AppendFrame(nil, &p)
	if err == nil {
		b.add(frame)
	}
	return err
}

func (b *batch) add(frames []byte) {
	if len(frames) == 0 {
		return
	}
	b.next, b.index = storage.StampFrames(frames, b.next, b.index, b.time.UnixNano())
	b.frames = append(b.frames, frames)
	b.size += int64(len(frames))
}
