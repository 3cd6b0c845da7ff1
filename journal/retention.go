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
	// The timer runs if there is something to do later, so that an idle journal wakes nothing up.
	timer := time.NewTimer(syncInterval)
	defer timer.Stop()
	running, failing := true, false
	var before uint64
	for {
		if !running && (failing || j.unsaved()) {
			timer.Reset(syncInterval)
			running = true
		}
		moved := j.moved
		if running {
			moved = nil
		}
		select {
		case <-moved:
			timer.Reset(syncInterval)
			running = true
			continue
		case <-timer.C:
			running = false
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

// unsaved reports whether a cursor could not be synced, or the journal is full. Only collectGarbage
// calls it, the only one that syncs.
func (j *Journal) unsaved() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.bytesWanted > 0 {
		return true
	}
	for _, c := range j.consumers {
		if c.synced != c.version {
			return true
		}
	}
	return false
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
