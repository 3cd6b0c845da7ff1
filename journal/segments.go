package journal

import (
	"maps"

	"github.com/hindsight-events/hindsight/journal/storage"
)

func (w *writer) needsSegment(bytes int64) bool {
	return w.out.NeedsSegment(bytes, w.j.maxSegmentBytes, w.j.nextOffset())
}

// startSegment starts a segment for the next record.
func (w *writer) startSegment() error {
	j := w.j
	base, header, err := j.nextHeader()
	if err == nil {
		err = w.out.StartSegment(base, header)
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.committed = w.out.Extend(j.committed)
	j.used = j.committed.Bytes()
	return nil
}

// nextHeader returns the header of a segment that begins with the next record.
func (j *Journal) nextHeader() (base uint64, header []byte, err error) {
	j.mu.Lock()
	base, tail := j.next, maps.Clone(j.tail)
	j.mu.Unlock()
	header, err = storage.EncodeHeader(base, tail)
	return base, header, err
}

// publish makes a durable group visible to consumers.
func (w *writer) publish(g *group) {
	w.pending = g.pending
	j := w.j
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.Copy(j.tail, g.tail)
	if g.size == 0 {
		return
	}
	for _, c := range j.consumers {
		if c.unread == j.next {
			c.unreadSince = g.time
		}
	}
	j.used += w.out.Size() - j.committed.Size
	j.committed.Size = w.out.Size()
	j.next = g.next
	close(j.appended)
	j.appended = make(chan struct{})
}

func (j *Journal) nextOffset() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}
