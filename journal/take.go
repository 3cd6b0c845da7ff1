package journal

import (
	"errors"
	"io"
	"maps"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

const (
	// nextBytes bounds what Next returns at once.
	nextBytes = 1 << 20

	// readPause is how long Next waits after it could not read.
	readPause = time.Second
)

// take returns what can be read now. If that is nothing, appended tells when to
// look again.
func (c *consumer) take(max int) (_ []Entry, appended <-chan struct{}, err error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	j := c.j
	j.mu.Lock()
	if j.closed || c.removed {
		j.mu.Unlock()
		return nil, nil, ErrClosed
	}
	v, read, lost := j.view(), c.read, c.cursor.lost
	j.mu.Unlock()

	t := taking{c: c, read: read}
	if expected := min(uint64(max), v.next-read, 1024); expected > 0 {
		t.entries = make([]Entry, 0, expected)
		t.steps = make([]mark, 0, expected)
	}
	if lost != nil && read < lost.until {
		t.overflow(lost)
	}
	var unreadSince time.Time
	var r event.Record
	size := 0
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
		if len(t.entries) >= max || size >= nextBytes {
			unreadSince = time.Unix(0, f.time)
			break
		}
		if broken := r.UnmarshalBinary(f.payload); broken != nil {
			j.log.Debug("record cannot be decoded", "offset", f.offset, "err", broken)
			c.reader.advance() // as if it were not there
			continue
		}
		if f.offset > t.read {
			t.damage(f.offset, &r)
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
	c.makeRoom(len(t.steps))
	for _, step := range t.steps {
		switch {
		case step.offset != 0:
			c.marks = append(c.marks, step)
		case len(c.marks) > 0:
			c.marks[len(c.marks)-1].absorb(step)
		default:
			c.advance(step)
		}
	}
	return t.entries, v.appended, err
}

// makeRoom lets n marks be added without allocating for each what was
// acknowledged before: marks come at one end and go at the other. Journal.mu is
// held.
func (c *consumer) makeRoom(n int) {
	need := len(c.marks) + n
	if need <= cap(c.marks) {
		return
	}
	if cap(c.marksRoom) < need+need/8 { // else there is soon no room again
		c.marksRoom = make([]mark, 0, need+need/4)
	}
	moved := append(c.marksRoom[:0], c.marks...)
	clear(moved[len(moved):cap(moved)])
	c.marks = moved
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

// taking is one call of take: what it returns, and what follows from it.
type taking struct {
	c       *consumer
	read    uint64
	entries []Entry
	steps   []mark
}

// frame takes in the frame at read.
func (t *taking) frame(f frame, r event.Record) {
	mine := r.To == "" || r.To == t.c.name
	t.read = f.after()
	step := mark{next: t.read, source: r.Source, moves: mine, position: r.Position}
	if mine {
		t.c.positions[r.Source] = r.Position
	}
	if mine && !f.position {
		step.offset, step.appended, step.missed = f.offset, time.Unix(0, f.time), 1
		t.entries = append(t.entries, Entry{Offset: f.offset, Record: r})
	}
	t.step(step)
}

func (t *taking) step(m mark) {
	if m.offset == 0 && len(t.steps) > 0 {
		t.steps[len(t.steps)-1].absorb(m)
		return
	}
	t.steps = append(t.steps, m)
}

// mark is an entry that was returned by Next, with what its acknowledgement
// means for the cursor.
type mark struct {
	offset   uint64 // zero: nothing was returned
	next     uint64 // offset behind it, and behind what was passed over after it
	appended time.Time
	source   string
	missed   int // records of source that are missing if it never is acknowledged

	// Where the sources are afterwards: position is that of source, unless
	// none is moved; others are those of further sources.
	moves    bool
	position event.Position
	others   map[string]event.Position
}

// absorb adds a step that follows without an entry.
func (m *mark) absorb(step mark) {
	m.next = step.next
	if step.moves {
		m.move(step.source, step.position)
	}
	for source, p := range step.others {
		m.move(source, p)
	}
}

func (m *mark) move(source string, p event.Position) {
	if source == m.source {
		m.moves, m.position = true, p
		return
	}
	if m.others == nil {
		m.others = make(map[string]event.Position, 1)
	}
	m.others[source] = p
}

// apply moves positions to where the mark leads.
func (m *mark) apply(positions map[string]event.Position) {
	if m.moves {
		positions[m.source] = m.position
	}
	maps.Copy(positions, m.others)
}
