package journal

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal/storage"
)

const (
	// nextBytes bounds the records of one Next.
	nextBytes = 1 << 20

	// readRetry is the pause after the log could not be read.
	readRetry = time.Second
)

// Next visits the entries after those of the last call, at least one and at most max, fewer if
// they are large, and returns their number. Gap records for the same records have the same offset
// and are visited together, even beyond max.
//
// Records for other consumers and records that only move a position are not visited. Next waits
// for an entry until ctx ends; entries that exist are visited even then. visit must not call the
// consumer.
func (c *Consumer) Next(ctx context.Context, max int, visit func(Entry)) (int, error) {
	for {
		n, appended, err := c.visitNext(max, visit)
		if n > 0 {
			return n, nil
		}
		if errors.Is(err, ErrClosed) {
			return 0, err
		}
		var retry <-chan time.Time
		if err != nil {
			appended, retry = nil, time.After(readRetry)
		}
		select {
		case <-appended:
		case <-retry:
		case <-c.done:
		case <-c.j.closing:
		case <-ctx.Done():
			// A record may have been appended just before.
			if n, _, _ := c.visitNext(max, visit); n > 0 {
				return n, nil
			}
			return 0, ctx.Err()
		}
	}
}

// visitNext visits the entries that can be read now. If there are none, appended is closed when
// there are.
func (c *Consumer) visitNext(max int, visit func(Entry)) (n int, appended <-chan struct{}, err error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	j := c.j
	j.mu.Lock()
	if j.closed || c.removed {
		j.mu.Unlock()
		return 0, nil, ErrClosed
	}
	log, end, dropped := j.committed, j.next, c.cursor.Dropped
	call := nextCall{c: c, visit: visit, unread: c.unread}
	appended = j.appended
	j.mu.Unlock()

	c.steps = c.steps[:0]
	if dropped != nil && call.unread < dropped.Until {
		call.declareDropped(dropped)
	}
	unreadSince, err := call.readFrames(log, end, max)
	c.logReadError(err)

	j.mu.Lock()
	defer j.mu.Unlock()
	c.unread = call.unread
	switch {
	case err == nil && unreadSince.IsZero() && c.unread < j.next:
		c.unreadSince = time.Now() // appended since the call began
	case err == nil:
		c.unreadSince = unreadSince
	}
	for i := range c.steps {
		c.inflight.add(&c.steps[i])
	}
	c.advance(0) // leading steps without an entry
	return call.entries, appended, err
}

// logReadError logs the first failure to read and the recovery.
func (c *Consumer) logReadError(err error) {
	switch {
	case err != nil && c.failingSince.IsZero():
		c.failingSince = time.Now()
		c.j.log.Error("cannot read the journal, retrying", "sink", c.name, "err", err)
	case err == nil && !c.failingSince.IsZero():
		c.j.log.Info("journal is readable again", "sink", c.name, "after", time.Since(c.failingSince).Round(time.Millisecond))
		c.failingSince = time.Time{}
	}
}

// nextCall is the state of one call of Next. Its steps are in c.steps.
type nextCall struct {
	c       *Consumer
	visit   func(Entry)
	unread  uint64 // offset of the first record not read
	entries int
}

// readFrames reads up to limit entries of a log that ends before an offset. It returns when the
// first record that it left unread was appended.
func (n *nextCall) readFrames(log storage.Log, end uint64, limit int) (unreadSince time.Time, err error) {
	c := n.c
	var pinned *storage.Segment
	for size := 0; ; {
		f, err := c.reader.Peek(log, n.unread)
		if errors.Is(err, io.EOF) {
			if n.unread < end {
				n.declareDamage(end, nil)
			}
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		if f.Offset < n.unread {
			c.reader.Advance()
			continue
		}
		if n.entries >= limit || size >= nextBytes {
			return time.Unix(0, f.Time), nil
		}
		record, err := c.records.Read(f.Payload)
		if err != nil {
			c.j.log.Debug("cannot decode record", "offset", f.Offset, "err", err)
			c.reader.Advance() // its offset will be missing, which declares a gap
			continue
		}
		if s := c.reader.Segment(); s != pinned {
			if err := c.lookup.Pin(s); err != nil {
				return time.Time{}, err
			}
			pinned = s
		}
		if f.Offset > n.unread {
			n.declareDamage(f.Offset, record)
		}
		size += len(f.Payload)
		n.visitFrame(f, record)
		c.reader.Advance()
	}
}

func (n *nextCall) visitFrame(f storage.Frame, r *event.Record) {
	n.unread = f.Next()
	if r.OnlySink != "" && r.OnlySink != n.c.name {
		n.skip()
		return
	}
	n.c.positions[r.Source] = r.Position
	s := step{next: n.unread, appended: f.Time, source: r.Source, moves: true, position: r.Position}
	if !f.PositionOnly {
		s.offset = f.Offset
		n.visit(Entry{Offset: f.Offset, Location: n.c.reader.Location(), Record: r})
		n.entries++
	}
	n.c.steps = append(n.c.steps, s)
}

// skip adds the records before unread to the last step.
func (n *nextCall) skip() {
	if steps := n.c.steps; len(steps) > 0 {
		steps[len(steps)-1].next = n.unread
	} else {
		n.c.steps = append(steps, step{next: n.unread})
	}
}
