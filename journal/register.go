package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/hindsight-events/hindsight/event"
)

// Consumer returns the consumer of a name, set back to its cursor: what it had
// read and not acknowledged comes again. Whoever read with it before must have
// stopped.
func (j *Journal) Consumer(name string) (Consumer, error) {
	j.mu.Lock()
	c := j.consumers[name]
	j.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("journal has no consumer %q", name)
	}
	c.rewind()
	return c, nil
}

// SetConsumers declares who reads the journal. Those it knows keep their
// cursors; new ones start where their options say; the others are removed and
// their cursors deleted.
func (j *Journal) SetConsumers(consumers []ConsumerOptions) error {
	j.setting.Lock()
	defer j.setting.Unlock()
	j.mu.Lock()
	closed := j.closed
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return j.setConsumers(consumers)
}

func (j *Journal) setConsumers(consumers []ConsumerOptions) error {
	keep := make(map[string]bool, len(consumers))
	for _, o := range consumers {
		if o.Name == "" || keep[o.Name] {
			return fmt.Errorf("consumer %q: names must be given and differ", o.Name)
		}
		keep[o.Name] = true
	}
	for _, o := range consumers {
		if err := j.addConsumer(o); err != nil {
			return fmt.Errorf("consumer %q: %w", o.Name, err)
		}
	}
	j.mu.Lock()
	names := slices.Collect(maps.Keys(j.consumers))
	j.mu.Unlock()
	counted := make(map[string]bool)
	for _, name := range names {
		if !keep[name] {
			j.dropBacklog(name, j.removeConsumer(name))
			counted[name] = true
		}
	}
	notify(j.kick)
	return j.removeUndeclared(keep, counted)
}

// CauseRemoved is told to Options.Dropped for the records that a consumer had not
// acknowledged when it was removed. No gap record has it: nobody is left to get it.
const CauseRemoved event.Cause = "removed"

// dropBacklog counts and logs the records that a consumer which is removed had
// not acknowledged.
func (j *Journal) dropBacklog(name string, records uint64) {
	if records == 0 {
		j.log.Info("the cursor of a sink that is not configured any more was removed", "sink", name)
		return
	}
	j.dropped(name, CauseRemoved, int(records))
	j.log.Warn("a sink was removed; the records that it had not accepted are dropped", "sink", name, "records", records,
		"hint", "a renamed sink is a new one: let a sink deliver its backlog before it is removed or renamed")
}

// addConsumer declares a consumer, or changes the options of one.
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
	c := &consumer{
		j: j, name: o.Name, whenFull: o.WhenFull, gone: make(chan struct{}),
		reader: reader{storage: j.storage}, again: rereader{storage: j.storage}, version: 1,
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	c.saving.Lock()
	defer c.saving.Unlock()

	j.mu.Lock()
	if known := j.consumers[o.Name]; known != nil {
		known.whenFull = o.WhenFull
		j.mu.Unlock()
		return nil
	}
	// From here on nothing that it might need is removed.
	oldest := j.segments[0]
	c.cursor.offset, c.read, c.durable = oldest.base, oldest.base, oldest.base
	j.consumers[o.Name] = c
	j.mu.Unlock()

	loaded, err := c.load(o.Start, oldest)
	if err == nil {
		j.mu.Lock()
		c.start(loaded)
		j.mu.Unlock()
		err = c.trySave(true)
	}
	if err != nil {
		c.file.close()
		j.mu.Lock()
		delete(j.consumers, o.Name)
		j.mu.Unlock()
	}
	return err
}

// load reads the cursor of a consumer. Without one it returns where the consumer
// begins; nil stands for the tail.
func (c *consumer) load(start Start, oldest *segment) (*cursor, error) {
	file, content, err := openCursor(c.j.storage, cursorName(c.name))
	c.file = file
	if err == nil {
		var known cursor
		if known, err = decodeCursor(c.name, content); err == nil {
			return &known, nil
		}
	}
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		// To begin anywhere else could lose something.
		c.j.log.Error("the cursor of a consumer is damaged; it begins at the oldest record, and what it had acknowledged since may come again",
			"sink", c.name, "err", err)
	case start != StartOldest:
		return nil, nil
	}
	first := &cursor{offset: oldest.base, positions: clonePositions(nil)}
	c.reader.reset()
	defer c.reader.reset()
	if err := c.reader.enter(oldest); err != nil {
		return nil, err
	}
	if info, _, err := c.reader.header(); err == nil {
		if positions, err := info.Positions.restore(); err == nil {
			first.positions = positions
		}
	}
	return first, nil
}

// start sets a consumer to a cursor, nil for the tail. Journal.mu is held.
func (c *consumer) start(at *cursor) {
	j := c.j
	if at == nil {
		at = &cursor{offset: j.next, positions: clonePositions(j.tail)}
	}
	if at.held() > j.next {
		j.log.Warn("the cursor of a consumer is beyond the end of the journal, where records must have been lost; it is set to the end and keeps its positions",
			"sink", c.name, "cursor", at.held(), "end", j.next)
		at.offset, at.lost = min(at.offset, j.next), nil
	}
	c.cursor = *at
	c.read, c.durable = at.offset, at.held()
	c.positions = clonePositions(at.positions)
}

// removeConsumer forgets a consumer and its cursor. It returns how many records
// the consumer had not acknowledged.
func (j *Journal) removeConsumer(name string) (behind uint64) {
	j.mu.Lock()
	c := j.consumers[name]
	behind = j.next - min(j.next, c.cursor.held())
	delete(j.consumers, name)
	c.removed = true
	close(c.gone)
	j.mu.Unlock()

	c.reading.Lock()
	c.reader.reset()
	c.reading.Unlock()
	c.again.releaseAll()
	c.saving.Lock()
	c.file.close()
	c.saving.Unlock()
	return behind
}

// removeUndeclared deletes the cursors of consumers that are not declared. Of
// those that are not counted, which a former process declared, it counts the
// records that they had not acknowledged.
func (j *Journal) removeUndeclared(declared, counted map[string]bool) error {
	names, err := j.storage.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		consumer, ok := parseCursorName(name)
		if !ok || declared[consumer] {
			continue
		}
		behind := j.behindCursor(consumer, name)
		if err := j.storage.remove(name); err != nil {
			return fmt.Errorf("remove the cursor of consumer %q: %w", consumer, err)
		}
		if !counted[consumer] {
			j.dropBacklog(consumer, behind)
		}
	}
	return nil
}

// behindCursor returns how many records are kept behind a cursor in the storage;
// all of them if it is damaged.
func (j *Journal) behindCursor(consumer, name string) uint64 {
	j.mu.Lock()
	next, from := j.next, j.segments[0].base
	j.mu.Unlock()
	file, content, err := openCursor(j.storage, name)
	defer file.close()
	if err == nil {
		if known, err := decodeCursor(consumer, content); err == nil {
			from = max(from, known.held())
		}
	}
	return next - min(next, from)
}
