package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/wait"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// ConsumerOptions declare a consumer.
type ConsumerOptions struct {
	Name     string // of its cursor
	WhenFull WhenFull
	Start    Start
}

// WhenFull is how a full journal treats a consumer that is behind.
type WhenFull string

const (
	Block      WhenFull = "block"       // Append waits; the default
	DropOldest WhenFull = "drop_oldest" // its oldest records are dropped and a gap is declared
)

// Start is where a consumer without a cursor starts.
type Start string

const (
	StartTail   Start = "tail"   // after the last record; the default
	StartOldest Start = "oldest" // at the oldest record that is kept
)

// CauseRemoved is the cause in Options.OnDrop for records that a consumer had not acknowledged
// when it was removed. No gap record has it.
const CauseRemoved event.Cause = "removed"

// Consumer returns a consumer, set back to its cursor: unacknowledged records are read again. Earlier
// calls with it must have returned.
func (j *Journal) Consumer(name string) (*Consumer, error) {
	j.mu.Lock()
	c := j.consumers[name]
	j.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("journal has no consumer %q", name)
	}
	c.rewind()
	return c, nil
}

// SetConsumers declares the consumers of the journal. Known ones keep their cursors, new ones
// start as their options say, and others are removed with their cursors.
func (j *Journal) SetConsumers(consumers []ConsumerOptions) error {
	j.configuring.Lock()
	defer j.configuring.Unlock()
	j.mu.Lock()
	closed := j.closed
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return j.setConsumers(consumers)
}

func (j *Journal) setConsumers(consumers []ConsumerOptions) error {
	declared := make(map[string]bool, len(consumers))
	for _, o := range consumers {
		if o.Name == "" || declared[o.Name] {
			return fmt.Errorf("consumer %q: names must be non-empty and unique", o.Name)
		}
		declared[o.Name] = true
	}
	for _, o := range consumers {
		if err := j.addConsumer(o); err != nil {
			return fmt.Errorf("consumer %q: %w", o.Name, err)
		}
	}
	for _, c := range j.sortedConsumers() {
		if !declared[c.name] {
			j.removeConsumer(c)
		}
	}
	wait.Notify(j.collecting)
	return j.removeCursors(declared)
}

// addConsumer adds a consumer, or changes the options of a known one.
func (j *Journal) addConsumer(o ConsumerOptions) error {
	switch o.WhenFull {
	case "", Block, DropOldest:
	default:
		return fmt.Errorf("when_full %q: want %s or %s", o.WhenFull, Block, DropOldest)
	}
	switch o.Start {
	case "", StartTail, StartOldest:
	default:
		return fmt.Errorf("start %q: want %s or %s", o.Start, StartTail, StartOldest)
	}
	c := &Consumer{
		j: j, name: o.Name, whenFull: o.WhenFull, done: make(chan struct{}),
		reader: storage.NewReader(j.fs), lookup: storage.NewLookup(j.fs), version: 1,
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	c.saving.Lock()
	defer c.saving.Unlock()

	j.deleting.Lock() // the oldest segment is not about to be deleted
	j.mu.Lock()
	if known := j.consumers[o.Name]; known != nil {
		known.whenFull = o.WhenFull
		j.mu.Unlock()
		j.deleting.Unlock()
		return nil
	}
	// From here on, garbage collection keeps all records that the consumer may need.
	oldest := j.committed.First()
	c.keepFrom, c.unread = oldest.Base, oldest.Base
	c.cursor.Offset = oldest.Base
	j.consumers[o.Name] = c
	j.mu.Unlock()
	j.deleting.Unlock()

	cursor, atTail := c.loadCursor(o.Start, oldest)
	j.mu.Lock()
	if atTail {
		cursor = storage.Cursor{Offset: j.next, Positions: j.tail}
	}
	if cursor.KeepFrom() > j.next {
		j.log.Warn("cursor is beyond the end of the journal, records must have been lost; moved to the end",
			"sink", c.name, "cursor", cursor.KeepFrom(), "end", j.next)
		cursor.Offset, cursor.Dropped = min(cursor.Offset, j.next), nil
	}
	cursor.Positions = clonePositions(cursor.Positions)
	c.startAt(cursor)
	c.keepFrom = cursor.KeepFrom()
	j.mu.Unlock()

	err := c.trySaveCursor(true)
	if err != nil {
		c.file.Close()
		j.mu.Lock()
		delete(j.consumers, o.Name)
		j.mu.Unlock()
	}
	return err
}

// loadCursor opens the cursor file. Without a cursor, the consumer starts at the oldest record or,
// if atTail is set, at the tail.
func (c *Consumer) loadCursor(start Start, oldest *storage.Segment) (cursor storage.Cursor, atTail bool) {
	var err error
	c.file, cursor, err = storage.OpenCursor(c.j.fs, c.name)
	if err == nil {
		return cursor, false
	}
	if !errors.Is(err, fs.ErrNotExist) {
		// Any later start could lose records.
		c.j.log.Error("cursor is damaged; the sink starts at the oldest record and may receive records again",
			"sink", c.name, "err", err)
	} else if start != StartOldest {
		return storage.Cursor{}, true
	}
	// A damaged header costs the positions, and nothing else.
	positions, _ := storage.ReadHeader(c.j.fs, oldest)
	return storage.Cursor{Offset: oldest.Base, Positions: positions}, false
}

// removeConsumer removes a consumer. Its cursor file remains.
func (j *Journal) removeConsumer(c *Consumer) {
	j.mu.Lock()
	delete(j.consumers, c.name)
	c.removed = true
	close(c.done)
	j.mu.Unlock()

	c.release()
	c.saving.Lock()
	defer c.saving.Unlock()
	c.file.Close()
}

// removeCursors deletes the cursors of consumers that are not declared, and counts the records
// that they had not acknowledged as dropped.
func (j *Journal) removeCursors(declared map[string]bool) error {
	consumers, err := storage.CursorNames(j.fs)
	if err != nil {
		return err
	}
	for _, name := range consumers {
		if declared[name] {
			continue
		}
		backlog := j.backlogOf(name)
		if err := storage.RemoveCursor(j.fs, name); err != nil {
			return err
		}
		if backlog == 0 {
			j.log.Info("cursor of a removed sink deleted", "sink", name)
			continue
		}
		j.onDrop(name, CauseRemoved, int(backlog))
		j.log.Warn("sink removed before it accepted all records; the rest is dropped", "sink", name, "records", backlog,
			"hint", "a renamed sink is a new one: let a sink deliver its backlog before it is removed or renamed")
	}
	return nil
}

// backlogOf returns how many records are kept after the cursor of a consumer that is not open; all
// of them if the cursor is damaged.
func (j *Journal) backlogOf(consumer string) uint64 {
	j.mu.Lock()
	next, from := j.next, j.committed.First().Base
	j.mu.Unlock()
	file, cursor, err := storage.OpenCursor(j.fs, consumer)
	file.Close()
	if err == nil {
		from = max(from, cursor.KeepFrom())
	}
	return next - min(next, from)
}

func (j *Journal) sortedConsumers() []*Consumer {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]*Consumer, 0, len(j.consumers))
	for _, name := range slices.Sorted(maps.Keys(j.consumers)) {
		all = append(all, j.consumers[name])
	}
	return all
}
