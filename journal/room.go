package journal

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// hasRoom reports whether so many bytes may be added now. If everything has been
// acknowledged, it sees to it that it can be let go of.
func (j *Journal) hasRoom(w *writer, size int64) (bool, error) {
	if j.mustRoll(w, size) {
		_, header, err := j.nextHeader()
		if err != nil {
			return false, err
		}
		size += int64(len(header))
	}
	j.mu.Lock()
	if j.used+size <= j.maxBytes {
		j.mu.Unlock()
		return true, nil
	}
	last := j.segments[len(j.segments)-1]
	empty := j.held() == j.next
	fresh := last.base == j.next
	if empty && fresh && len(j.segments) == 1 {
		j.mu.Unlock()
		return true, nil // larger than the bound: it passes alone
	}
	j.mu.Unlock()
	j.setNeed(size)
	if !empty || fresh {
		return false, nil
	}
	err := j.roll(w)
	notify(j.kick)
	return false, err
}

// setNeed notes how many bytes are waited for.
func (j *Journal) setNeed(size int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size != 0 && j.need != size {
		notify(j.kick)
	}
	j.need = size
}

// waitForRoom waits until something has been let go of or a request has been
// withdrawn. It returns false when the journal is closed.
func (j *Journal) waitForRoom() bool {
	j.block("")
	timer := time.NewTimer(tellAfter) // that it lasts is told then
	defer timer.Stop()
	select {
	case <-j.room:
		return true
	case <-timer.C:
		return true
	case <-j.closing:
		return false
	}
}

// waitToRetry waits for a while, or until a request of the group was withdrawn.
// It returns false when the journal is closed.
func (j *Journal) waitToRetry(group []*request, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-j.room:
			if slices.ContainsFunc(group, func(r *request) bool { return r.ctx.Err() != nil }) {
				return true
			}
		case <-j.closing:
			return false
		}
	}
}

// block notes that nothing can be appended, because of an error or, without one,
// because the journal is full. It is logged once: an error at once, and that the
// journal is full when that lasts, since close to the bound it is full for a
// moment again and again.
func (j *Journal) block(err string) {
	j.mu.Lock()
	if j.blocked.since.IsZero() {
		j.blocked.since = time.Now()
	}
	tell := !j.blocked.told && (err != "" || time.Since(j.blocked.since) >= tellAfter)
	j.blocked.told = j.blocked.told || tell
	j.blocked.err = err
	why, used := j.whyBlocked(), j.used
	j.mu.Unlock()

	level := slog.LevelDebug
	if tell {
		level = slog.LevelWarn
	}
	j.log.Log(context.Background(), level, "the journal takes no records for now; they wait", "why", why, "bytes", used, "max_bytes", j.maxBytes)
}

// whyBlocked says why nothing can be appended. Journal.mu is held.
func (j *Journal) whyBlocked() string {
	if j.blocked.err != "" {
		return j.blocked.err
	}
	return "full because of " + strings.Join(j.laggards(), ", ")
}

// tellAfter is how long the journal has to be full for that to be worth a line.
const tellAfter = time.Second

// unblock notes that appending goes on.
func (j *Journal) unblock() {
	j.mu.Lock()
	blocked := j.blocked
	if !blocked.since.IsZero() {
		j.blocked = blocking{total: blocked.total + time.Since(blocked.since)}
	}
	j.need = 0
	j.mu.Unlock()
	if blocked.told {
		j.log.Info("the journal takes records again", "after", time.Since(blocked.since).Round(time.Millisecond))
	}
}

// droppable returns the consumers that are in the way of an append, and up to
// where records have to be dropped for them. There are none if dropping would
// not help because one that blocks is in the way too.
func (j *Journal) droppable() (until uint64, laggards []*consumer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.need == 0 || j.used+j.need <= j.maxBytes {
		return 0, nil
	}
	until = j.next
	if len(j.segments) > 1 {
		until = j.segments[1].base
	}
	for _, c := range j.consumers {
		if c.cursor.held() >= until {
			continue
		}
		if c.whenFull != DropOldest {
			return 0, nil
		}
		laggards = append(laggards, c)
	}
	return until, laggards
}

// laggards names the consumers for which the oldest segment is kept. Journal.mu
// is held.
func (j *Journal) laggards() (names []string) {
	until := j.next
	if len(j.segments) > 1 {
		until = j.segments[1].base
	}
	for name, c := range j.consumers {
		if c.durable < until {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
