package journal

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/wait"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// Consumer reads a journal for one sink. Next is for one goroutine, and so is Read; Ack may be
// called from any.
type Consumer struct {
	j    *Journal
	name string
	file *storage.CursorFile // guarded by saving
	done chan struct{}       // closed when the consumer is removed

	// reading is held while the log is read. It guards these fields, and is also held to change
	// unread and cursor.Dropped.
	reading      sync.Mutex
	reader       *storage.Reader
	records      event.Reader
	steps        []step                    // of one Next
	positions    map[string]event.Position // at unread
	failingSince time.Time                 // when the log could not be read; zero: it can

	lookup *storage.Lookup

	// Guarded by Journal.mu.
	whenFull    WhenFull
	removed     bool
	cursor      storage.Cursor
	version     uint64 // of cursor
	keepFrom    uint64 // offset of the first record that the synced cursor needs
	unread      uint64 // offset of the first record not read
	inflight    inflight
	unreadSince time.Time // when the record at unread was appended
	dropping    bool      // records were dropped since the consumer last had no backlog

	// saving is held while the cursor is saved, and guards these fields.
	saving     sync.Mutex
	written    uint64 // version
	synced     uint64 // version
	saveFailed bool
}

// Entry is a record and its place in the journal.
type Entry struct {
	Offset uint64 // grows from record to record

	// Location is zero for a gap record, which is not in the log.
	Location Location

	// Record and its Event are valid until visit returns, except a gap record.
	Record *event.Record
}

// Location is the address of a record in the log.
type Location = storage.Location

// Read visits records that Next has visited and that are not acknowledged, in the order of their
// locations. A record and its Event are valid until visit returns.
//
// It fails if a record cannot be read or is damaged by now. Next declares a gap for such a record
// once the consumer has been obtained again.
func (c *Consumer) Read(locations []Location, visit func(*event.Record)) error {
	return c.lookup.Read(locations, visit)
}

// Ack acknowledges everything up to and including an offset: the journal need not keep it for
// this consumer. The cursor has been handed to the operating system when Ack returns. If that
// fails, it is logged and retried, and nothing is deleted before.
func (c *Consumer) Ack(offset uint64) error {
	j := c.j
	j.mu.Lock()
	if j.closed || c.removed {
		j.mu.Unlock()
		return ErrClosed
	}
	if offset >= c.unread {
		j.mu.Unlock()
		return fmt.Errorf("acknowledge offset %d: only those before %d have been read", offset, c.unread)
	}
	moved := c.advance(offset)
	needed, _, ok := c.inflight.oldest()
	if !ok {
		needed = c.unread
	}
	garbage := j.bytesWanted > 0 || len(j.committed.Segments) > 1 && c.cursor.KeepFrom() >= j.committed.Segments[1].Base
	caughtUp := c.dropping && c.cursor.Offset >= j.next
	if caughtUp {
		c.dropping = false
	}
	j.mu.Unlock()

	if caughtUp {
		j.log.Info("sink has caught up; no records are dropped any more", "sink", c.name)
	}
	c.lookup.Unpin(needed)
	if moved {
		c.saveCursor(false)
		wait.Notify(j.moved)
	}
	if garbage {
		wait.Notify(j.collecting)
	}
	return nil
}

// rewind sets the consumer back to its cursor.
func (c *Consumer) rewind() {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.reader.Reset()
	c.lookup.UnpinAll()
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	if _, appended, ok := c.inflight.oldest(); ok {
		c.unreadSince = appended
	}
	c.startAt(c.cursor)
}

// startAt makes the consumer continue at a cursor. Journal.mu is held.
func (c *Consumer) startAt(cursor storage.Cursor) {
	c.cursor = cursor
	c.unread = cursor.Offset
	c.positions = clonePositions(cursor.Positions)
	c.inflight = inflight{}
}

func (c *Consumer) close() error {
	c.release()
	c.saving.Lock()
	defer c.saving.Unlock()
	defer c.file.Close()
	return c.trySaveCursor(true)
}

// release closes the segments.
func (c *Consumer) release() {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.reader.Reset()
	c.lookup.UnpinAll()
}

func clonePositions(positions map[string]event.Position) map[string]event.Position {
	if positions == nil {
		return make(map[string]event.Position)
	}
	return maps.Clone(positions)
}
