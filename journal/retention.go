package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/internal/wait"
)

// syncInterval is how long an acknowledgement may wait to be synced.
const syncInterval = time.Second

// collectGarbage syncs cursors, deletes segments that no consumer needs, and drops the oldest
// records of consumers that allow it when the journal is full.
func (j *Journal) collectGarbage() {
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	failing := false
	var before uint64
	for {
		select {
		case <-tick.C:
		case <-j.collecting:
		case <-j.closing:
			return
		}
		// A segment is deleted only if no cursor on disk needs it.
		for _, c := range j.sortedConsumers() {
			c.saveCursor(true)
		}
		deleted, keepFrom, err := j.deleteSegments()
		if deleted || keepFrom != before {
			wait.Notify(j.changed)
		}
		before = keepFrom
		if err != nil && !failing {
			j.log.Error("cannot delete acknowledged segments, retrying", "err", err)
		}
		failing = err != nil
		if until, laggards := j.droppable(); len(laggards) > 0 {
			for _, c := range laggards {
				c.dropOldest(until)
			}
			wait.Notify(j.collecting)
		}
	}
}

// deleteSegments deletes the segments that no consumer needs, except the last one. keepFrom is the
// offset of the first record that is needed.
func (j *Journal) deleteSegments() (deleted bool, keepFrom uint64, err error) {
	j.deleting.Lock()
	defer j.deleting.Unlock()
	for {
		j.mu.Lock()
		keepFrom = j.keepFrom()
		if len(j.committed.Segments) == 1 || j.committed.Segments[1].Base > keepFrom {
			j.mu.Unlock()
			return deleted, keepFrom, nil
		}
		oldest := j.committed.First()
		j.mu.Unlock()

		if err := j.fs.Remove(oldest.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return deleted, keepFrom, fmt.Errorf("delete segment %s: %w", oldest.Name(), err)
		}
		j.mu.Lock()
		j.committed.Segments = slices.Clone(j.committed.Segments[1:])
		j.used -= oldest.Size
		j.mu.Unlock()
		deleted = true
	}
}

// droppable returns the consumers that must drop their oldest records to free space for an append,
// and the offset up to which. There are none if a blocking consumer needs the same segment.
func (j *Journal) droppable() (until uint64, laggards []*Consumer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.bytesWanted == 0 || j.used+j.bytesWanted <= j.maxBytes {
		return 0, nil
	}
	until = j.oldestEnd()
	for _, c := range j.consumers {
		if c.cursor.KeepFrom() >= until {
			continue
		}
		if c.whenFull != DropOldest {
			return 0, nil
		}
		laggards = append(laggards, c)
	}
	return until, laggards
}
