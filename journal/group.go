package journal

import (
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// group is the frames of requests that are written and synced together. Nothing has changed until it
// is published.
type group struct {
	frames  [][]byte
	size    int64
	next    uint64 // offset after the group
	index   uint32 // of the next frame in the group
	time    time.Time
	tail    map[string]event.Position
	pending map[string]event.Record // after the group
}

func newGroup(next uint64) *group { return &group{next: next, time: time.Now()} }

// assemble makes a group of requests.
func (w *writer) assemble(requests []*request) (*group, error) {
	g := newGroup(w.j.nextOffset())
	g.tail = make(map[string]event.Position)
	g.pending = maps.Clone(w.pending)
	for _, r := range requests {
		for source := range r.addressed {
			if err := g.addPosition(source, g.pending); err != nil {
				return nil, err
			}
		}
		g.add(*r.frames)
		for source, position := range r.tail {
			g.tail[source] = position
			delete(g.pending, source)
		}
		if len(r.trailing) > 0 && g.pending == nil {
			g.pending = make(map[string]event.Record, len(r.trailing))
		}
		maps.Copy(g.pending, r.trailing)
	}
	return g, nil
}

// assemblePending makes a group of the positions that wait for a record.
func (w *writer) assemblePending() (*group, error) {
	g := newGroup(w.j.nextOffset())
	for _, source := range slices.Sorted(maps.Keys(w.pending)) {
		if err := g.addPosition(source, w.pending); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// addPosition adds the pending position of a source, if it has one.
func (g *group) addPosition(source string, pending map[string]event.Record) error {
	p, ok := pending[source]
	if !ok {
		return nil
	}
	frame, err := storage.AppendFrame(nil, &p)
	if err == nil {
		g.add(frame)
	}
	return err
}

func (g *group) add(frames []byte) {
	if len(frames) == 0 {
		return
	}
	g.next, g.index = storage.StampFrames(frames, g.next, g.index, g.time.UnixNano())
	g.frames = append(g.frames, frames)
	g.size += int64(len(frames))
}
