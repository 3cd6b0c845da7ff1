package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// consumer is one reader of the journal with its cursor.
type consumer struct {
	j    *Journal
	name string
	gone chan struct{} // closed when it is removed

	// reading is held while the log is read. It guards what follows, and whoever
	// changes read or cursor.lost holds it too.
	reading   sync.Mutex
	reader    reader
	records   event.Reader
	steps     []step                    // room for those of a take
	positions map[string]event.Position // at read
	failing   time.Time                 // since when the log cannot be read

	again rereader

	// These are guarded by Journal.mu.
	whenFull    WhenFull
	removed     bool
	cursor      cursor
	version     uint64    // grows when cursor does
	durable     uint64    // records before it need not be kept
	read        uint64    // offset of the first record not read
	marks       marks     // read and not acknowledged
	unreadSince time.Time // when the record at read was appended
	dropping    bool      // records have been dropped since it last was not behind

	// saving is held while the cursor is written. It guards what follows.
	saving  sync.Mutex
	file    *cursorFile
	written uint64 // version
	synced  uint64 // version
	failed  bool   // the last time
}

func (c *consumer) Next(ctx context.Context, max int, visit func(Entry)) (int, error) {
	for {
		n, appended, err := c.take(max, visit)
		if n > 0 {
			return n, nil
		}
		var retry <-chan time.Time
		if unreadable := (errUnreadable{}); errors.As(err, &unreadable) {
			appended, retry = nil, time.After(readPause)
		} else if err != nil {
			return 0, err
		}
		select {
		case <-appended:
		case <-retry:
		case <-c.gone:
		case <-c.j.closing:
		case <-ctx.Done():
			// Something may have been appended just before.
			if n, _, _ := c.take(max, visit); n > 0 {
				return n, nil
			}
			return 0, ctx.Err()
		}
	}
}

// advanced follows a move of the cursor's positions. Journal.mu is held.
func (c *consumer) advanced(next uint64) {
	c.cursor.offset = max(c.cursor.offset, next)
	if c.cursor.lost != nil && c.cursor.offset >= c.cursor.lost.until {
		c.cursor.lost = nil
	}
	c.version++
}

func (c *consumer) Ack(offset uint64) error {
	j := c.j
	j.mu.Lock()
	if j.closed || c.removed {
		j.mu.Unlock()
		return ErrClosed
	}
	if offset >= c.read {
		j.mu.Unlock()
		return fmt.Errorf("acknowledge offset %d: only those before %d have been read", offset, c.read)
	}
	n := c.marks.upTo(offset)
	if n > 0 {
		c.marks.applyFirst(n, c.cursor.positions)
		c.advanced(c.marks.next(n - 1))
		c.marks.drop(n)
	}
	needed := c.read
	if c.marks.len() > 0 {
		m, _ := c.marks.at(0)
		needed = m.offset
	}
	held, behind := c.cursor.held(), c.cursor.offset < j.next
	wanted := j.need > 0 || len(j.segments) > 1 && held >= j.segments[1].base
	recovered := c.dropping && !behind
	if recovered {
		c.dropping = false
	}
	j.mu.Unlock()

	if recovered {
		j.log.Info("nothing is dropped any more; the consumer is not behind", "sink", c.name)
	}
	c.again.release(needed)
	if n > 0 {
		c.save(false)
	}
	if wanted {
		notify(j.kick)
	}
	return nil
}

// held is the offset from which on records are kept for the consumer.
func (c *cursor) held() uint64 {
	if c.lost != nil {
		return max(c.offset, c.lost.until)
	}
	return c.offset
}

// rewind sets the consumer back to its cursor.
func (c *consumer) rewind() {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.cursor.lost = c.lostWithMarks()
	if c.marks.len() > 0 {
		m, _ := c.marks.at(0)
		c.unreadSince = m.appendedAt()
	}
	c.marks = marks{}
	c.again.releaseAll()
	c.read = c.cursor.offset
	c.positions = clonePositions(c.cursor.positions)
	c.reader.reset()
}

func (c *consumer) close() error {
	c.reading.Lock()
	c.reader.reset()
	c.reading.Unlock()
	c.again.releaseAll()
	c.saving.Lock()
	defer c.saving.Unlock()
	defer c.file.close()
	return c.trySave(true)
}
