package journal

import (
	"errors"
	"io"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

const (
	// nextBytes bounds what Next returns at once.
	nextBytes = 1 << 20

	// readPause is how long Next waits after it could not read.
	readPause = time.Second
)

// take visits what can be read now and returns how much that was. If that is
// nothing, appended tells when to look again.
func (c *consumer) take(max int, visit func(Entry)) (n int, appended <-chan struct{}, err error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	j := c.j
	j.mu.Lock()
	if j.closed || c.removed {
		j.mu.Unlock()
		return 0, nil, ErrClosed
	}
	v, read, lost := j.view(), c.read, c.cursor.lost
	j.mu.Unlock()

	c.steps = c.steps[:0]
	t := taking{c: c, visit: visit, read: read}
	if lost != nil && read < lost.until {
		t.overflow(lost)
	}
	var unreadSince time.Time
	size, held := 0, -1
	for {
		var f frame
		f, err = c.reader.peek(v, t.read)
		if errors.Is(err, io.EOF) {
			err = nil
			if t.read < v.next {
				t.damage(v.next, nil)
			}
			break
		}
		if err != nil {
			break
		}
		if f.offset < t.read {
			c.reader.advance()
			continue
		}
		if t.entries >= max || size >= nextBytes {
			unreadSince = time.Unix(0, f.time)
			break
		}
		r, broken := c.records.Read(f.payload)
		if broken != nil {
			j.log.Debug("record cannot be decoded", "offset", f.offset, "err", broken)
			c.reader.advance() // as if it were not there
			continue
		}
		if id := c.reader.seg.id; id != held {
			if err = c.again.hold(c.reader.seg); err != nil {
				break
			}
			held = id
		}
		if f.offset > t.read {
			t.damage(f.offset, r)
		}
		size += len(f.payload)
		t.frame(f, r)
		c.reader.advance()
	}
	c.note(err)

	j.mu.Lock()
	defer j.mu.Unlock()
	if lost != nil && read < lost.until && c.cursor.lost != nil {
		// The marks of the gap records count them from here on.
		c.cursor.lost = &stretch{until: lost.until, positions: lost.positions}
	}
	c.read = t.read
	switch {
	case err == nil && unreadSince.IsZero() && t.read < j.next:
		c.unreadSince = time.Now() // appended since v was taken
	case err == nil:
		c.unreadSince = unreadSince
	}
	for i := range c.steps {
		switch s := &c.steps[i]; {
		case s.offset != 0:
			c.marks.add(s)
		case c.marks.len() > 0:
			c.marks.absorb(s)
		default:
			s.apply(c.cursor.positions)
			c.advanced(s.next)
		}
	}
	return t.entries, v.appended, err
}

// note logs that the log cannot be read, and that it can again.
func (c *consumer) note(err error) {
	switch {
	case err != nil && c.failing.IsZero():
		c.failing = time.Now()
		c.j.log.Error("the journal cannot be read, will be tried again", "sink", c.name, "err", err)
	case err == nil && !c.failing.IsZero():
		c.j.log.Info("the journal can be read again", "sink", c.name, "after", time.Since(c.failing).Round(time.Millisecond))
		c.failing = time.Time{}
	}
}

// taking is one call of take: what it has visited, and what follows from it. Its
// steps are in c.steps.
type taking struct {
	c       *consumer
	visit   func(Entry)
	read    uint64
	entries int
}

// frame takes in the frame at read.
func (t *taking) frame(f frame, r *event.Record) {
	mine := r.OnlySink == "" || r.OnlySink == t.c.name
	t.read = f.after()
	s := step{next: t.read, source: r.Source, moves: mine, position: r.Position}
	if mine {
		t.c.positions[r.Source] = r.Position
	}
	if mine && !f.position {
		s.offset, s.appended, s.missed = f.offset, f.time, 1
		t.visit(Entry{Offset: f.offset, Location: t.c.reader.place(), Record: r})
		t.entries++
	}
	t.step(s)
}

func (t *taking) step(s step) {
	steps := t.c.steps
	if s.offset == 0 && len(steps) > 0 {
		steps[len(steps)-1].absorb(s)
		return
	}
	t.c.steps = append(steps, s)
}
