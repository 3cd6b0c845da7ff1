package journal

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/internal/wait"
)

// reserve reports whether so many bytes can be added now. If not, it makes garbage collection
// free them as soon as possible.
func (w *writer) reserve(bytes int64) (bool, error) {
	j := w.j
	if w.needsSegment(bytes) {
		_, header, err := j.nextHeader()
		if err != nil {
			return false, err
		}
		bytes += int64(len(header))
	}
	j.mu.Lock()
	fits := j.used+bytes <= j.maxBytes
	acknowledged := j.keepFrom() == j.next
	lastIsEmpty := j.committed.Last().Base == j.next
	empty := acknowledged && lastIsEmpty && len(j.committed.Segments) == 1
	j.mu.Unlock()
	if fits || empty { // a group larger than the journal is accepted alone
		return true, nil
	}
	j.setBytesWanted(bytes)
	if !acknowledged || lastIsEmpty {
		return false, nil
	}
	// All records are garbage: start a segment, so that the last one can be deleted.
	err := w.startSegment()
	wait.Notify(j.collecting)
	return false, err
}

func (j *Journal) setBytesWanted(bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if bytes != 0 && j.bytesWanted != bytes {
		wait.Notify(j.collecting)
	}
	j.bytesWanted = bytes
}

// waitForCapacity waits until space was freed, a request was cancelled, or it is time to log that
// the journal is full. It returns false when the journal is closed.
func (w *writer) waitForCapacity() bool {
	timer := time.NewTimer(fullLogDelay)
	defer timer.Stop()
	select {
	case <-w.j.changed:
		return true
	case <-timer.C:
		return true
	case <-w.j.closing:
		return false
	}
}

// waitToRetry pauses, or waits until a request is cancelled. It returns false when
// the journal is closed.
func (w *writer) waitToRetry(requests []*request, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-w.j.changed:
			if slices.ContainsFunc(requests, func(r *request) bool { return r.ctx.Err() != nil }) {
				return true
			}
		case <-w.j.closing:
			return false
		}
	}
}

// fullLogDelay is how long the journal must be full before that is logged: close to its capacity
// it is full for moments all the time.
const fullLogDelay = time.Second

// blocked is the time in which nothing could be appended.
type blocked struct {
	since  time.Time     // zero: appends succeed
	err    string        // empty: the journal is full
	logged bool          // as a warning
	total  time.Duration // up to since
}

// block records that appends wait, because of an error or, if that is empty, because the journal
// is full.
func (j *Journal) block(err string) {
	j.mu.Lock()
	b := &j.blocked
	if b.since.IsZero() {
		b.since = time.Now()
	}
	b.err = err
	first := !b.logged && (err != "" || time.Since(b.since) >= fullLogDelay)
	b.logged = b.logged || first
	reason, used := j.blockedReason(), j.used
	j.mu.Unlock()
	warnOnce(j.log, first, "journal is blocked; appends wait", "reason", reason, "bytes", used, "max_bytes", j.maxBytes)
}

// unblock records that appends succeed.
func (j *Journal) unblock() {
	j.mu.Lock()
	b := j.blocked
	if !b.since.IsZero() {
		j.blocked = blocked{total: b.total + time.Since(b.since)}
	}
	j.bytesWanted = 0
	j.mu.Unlock()
	if b.logged {
		j.log.Info("journal accepts records again", "after", time.Since(b.since).Round(time.Millisecond))
	}
}

// blockedReason is called with mu held.
func (j *Journal) blockedReason() string {
	if j.blocked.err != "" {
		return j.blocked.err
	}
	return "full because of " + strings.Join(j.laggards(), ", ")
}

// laggards returns the names of the consumers that need the oldest segment. mu is held.
func (j *Journal) laggards() (names []string) {
	until := j.oldestEnd()
	for name, c := range j.consumers {
		if c.keepFrom < until {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// oldestEnd returns the offset after the oldest segment. mu is held.
func (j *Journal) oldestEnd() uint64 {
	if segments := j.committed.Segments; len(segments) > 1 {
		return segments[1].Base
	}
	return j.next
}

// keepFrom returns the offset of the first record that a consumer needs. mu is held.
func (j *Journal) keepFrom() uint64 {
	keep := j.next
	for _, c := range j.consumers {
		keep = min(keep, c.keepFrom)
	}
	return keep
}

// warnOnce logs a repeated state as a warning the first time, and for debugging later.
func warnOnce(log *slog.Logger, first bool, msg string, args ...any) {
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, msg, args...)
}
