package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// cursorsWithin is how long an acknowledgement may wait to be synced.
const cursorsWithin = time.Second

// tend lets go of what every consumer has acknowledged.
func (j *Journal) tend() {
	tick := time.NewTicker(cursorsWithin)
	defer tick.Stop()
	failing := false
	var before uint64
	for {
		select {
		case <-tick.C:
		case <-j.kick:
		case <-j.closing:
			return
		}
		// A segment is removed only when no cursor that is on disk needs it.
		for _, c := range j.all() {
			c.save(true)
		}
		removed, held, err := j.removeAcknowledged()
		if removed || held != before {
			notify(j.room)
		}
		before = held
		if err != nil && !failing {
			j.log.Error("what has been acknowledged cannot be removed, will be tried again", "err", err)
		}
		failing = err != nil
		if until, laggards := j.droppable(); len(laggards) > 0 {
			for _, c := range laggards {
				c.drop(until)
			}
			notify(j.kick)
		}
	}
}

// held is the offset from which on records are kept for some consumer. Journal.mu
// is held.
func (j *Journal) held() uint64 {
	held := j.next
	for _, c := range j.consumers {
		held = min(held, c.durable)
	}
	return held
}

// removeAcknowledged removes the segments that no consumer needs. The last one
// always stays: it carries the next offset and the positions. held is the offset
// up to which nothing is needed.
func (j *Journal) removeAcknowledged() (removed bool, held uint64, err error) {
	for {
		j.mu.Lock()
		held = j.held()
		if len(j.segments) == 1 || j.segments[1].base > held {
			j.mu.Unlock()
			return removed, held, nil
		}
		oldest := j.segments[0]
		j.mu.Unlock()

		if err := j.storage.remove(oldest.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, held, fmt.Errorf("remove segment %s: %w", oldest.name(), err)
		}
		j.mu.Lock()
		j.segments = slices.Clone(j.segments[1:])
		j.used -= oldest.size
		j.mu.Unlock()
		removed = true
	}
}
