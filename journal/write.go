package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

const (
	// groupBytes is how much is written and synced at once: enough that slow
	// syncs do not bound the rate, little enough to be staged in memory.
	groupBytes = 2 << 20

	// positionsWithin is how long a position may wait for a record to be
	// written with.
	positionsWithin = time.Second

	// The pause after a failed write, doubled each time.
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// writer is the state of the goroutine that writes the log.
type writer struct {
	seg    *segment
	f      file
	size   int64 // committed bytes of f
	broken bool  // nothing may be written to f any more

	// pending are positions that are in the tail but not in the log yet.
	pending map[string]event.Record
}

func (w *writer) close() {
	if w.f != nil {
		w.f.Close()
	}
}

// write commits what Append has staged, as one group what has come together
// while the group before was being synced.
func (j *Journal) write(w *writer) {
	defer w.close()
	flush := time.NewTimer(positionsWithin)
	flush.Stop()
	for {
		group := j.nextGroup()
		if len(group) == 0 {
			select {
			case <-j.work:
			case <-flush.C:
				if !j.flushPositions(w) {
					flush.Reset(positionsWithin)
				}
			case <-j.closing:
				j.flushPositions(w)
				return
			}
			continue
		}
		idle := len(w.pending) == 0
		j.commit(w, group)
		if idle && len(w.pending) > 0 {
			flush.Reset(positionsWithin)
		}
	}
}

// nextGroup takes what has been staged, up to what may be written at once, but
// at least one request if there is one.
func (j *Journal) nextGroup() []*request {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, size := 0, int64(0)
	for n < len(j.staged) {
		size += int64(len(*j.staged[n].frames))
		if n > 0 && size > min(groupBytes, j.segBytes) {
			break
		}
		n++
	}
	group := slices.Clone(j.staged[:n])
	j.staged = slices.Delete(j.staged, 0, n)
	return group
}

// withdraw takes a request back. It reports whether it still could be.
func (j *Journal) withdraw(r *request) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.Index(j.staged, r)
	if i < 0 {
		return false
	}
	j.staged = slices.Delete(j.staged, i, i+1)
	return true
}

// commit writes a group and answers its requests. It tries until it succeeds;
// requests whose context ends meanwhile are taken out of the group.
func (j *Journal) commit(w *writer, group []*request) {
	pause := minRetry
	for {
		group = slices.DeleteFunc(group, func(r *request) bool {
			err := r.ctx.Err()
			if err == nil {
				return false
			}
			r.done <- err
			return true
		})
		if len(group) == 0 {
			j.unblock()
			return
		}
		b, err := j.stage(w, group)
		if err == nil && b.size > 0 {
			var ok bool
			if ok, err = j.hasRoom(w, b.size); err == nil && !ok {
				if !j.waitForRoom() {
					answer(group, ErrClosed)
					return
				}
				continue
			}
			if err == nil {
				err = j.put(w, b)
			}
		}
		if err == nil {
			j.unblock()
			j.publish(w, b)
			answer(group, nil)
			return
		}
		j.block(err.Error())
		if !j.waitToRetry(group, pause) {
			answer(group, fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
		pause = min(2*pause, maxRetry)
	}
}

func answer(group []*request, err error) {
	for _, r := range group {
		r.done <- err
	}
}

// put writes a batch and syncs it. After an error none of it is in the log.
func (j *Journal) put(w *writer, b *batch) error {
	if j.mustRoll(w, b.size) { // never inside a group
		if err := j.roll(w); err != nil {
			return err
		}
	}
	at := w.size
	for _, chunk := range b.chunks {
		n, err := w.f.WriteAt(chunk, at)
		at += int64(n)
		if err != nil {
			if cut := w.f.Truncate(w.size); cut != nil {
				w.broken = true
				err = errors.Join(err, cut)
			}
			return fmt.Errorf("write segment %s: %w", w.seg.name(), err)
		}
	}
	if err := w.f.Sync(); err != nil {
		// What is on disk is unknown now, and syncing again would not tell.
		// The segment ends at what was synced before; the group goes into a
		// new one.
		w.broken = true
		_ = w.f.Truncate(w.size) // frames left behind are not believed: see reader.peek
		return fmt.Errorf("sync segment %s: %w", w.seg.name(), err)
	}
	w.size = at
	return nil
}

// mustRoll reports whether so many bytes go into a new segment.
func (j *Journal) mustRoll(w *writer, size int64) bool {
	return w.broken || w.size+size > j.segBytes && w.seg.base < j.offset()
}

// roll begins a new segment.
func (j *Journal) roll(w *writer) error {
	base, header, err := j.nextHeader()
	if err != nil {
		return err
	}
	f, err := createSynced(j.storage, segmentName(base), header)
	if err != nil {
		// It may be there all the same, after a crash: then it begins with the
		// next record, and none may go elsewhere.
		w.broken = true
		return fmt.Errorf("create segment %s: %w", segmentName(base), err)
	}
	seg := &segment{id: w.seg.id + 1, base: base}

	j.mu.Lock()
	old := w.seg
	old.size = w.size
	segments := slices.Clone(j.segments)
	if old.base == base {
		// It had no records; the new file has taken its name.
		segments = segments[:len(segments)-1]
		j.used -= old.size
	}
	j.segments = append(segments, seg)
	j.size = int64(len(header))
	j.used += j.size
	j.mu.Unlock()

	w.close()
	*w = writer{seg: seg, f: f, size: int64(len(header)), pending: w.pending}
	return nil
}

// nextHeader returns the header of a segment that begins with the next record.
func (j *Journal) nextHeader() (base uint64, header []byte, err error) {
	j.mu.Lock()
	base, tail := j.next, maps.Clone(j.tail)
	j.mu.Unlock()
	header, err = encodeSegmentHeader(base, tail)
	return base, header, err
}

// publish lets readers see a batch that is on disk.
func (j *Journal) publish(w *writer, b *batch) {
	w.pending = b.pending
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.Copy(j.tail, b.tail)
	if b.size == 0 {
		return
	}
	for _, c := range j.consumers {
		if c.read == j.next {
			c.unreadSince = b.time
		}
	}
	j.used += w.size - j.size
	j.size = w.size
	j.next = b.next
	close(j.appended)
	j.appended = make(chan struct{})
}

func (j *Journal) offset() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// flushPositions writes the positions that wait for a record. It reports whether
// none is left; those that are have not become less durable than they were.
func (j *Journal) flushPositions(w *writer) bool {
	if len(w.pending) == 0 {
		return true
	}
	b := &batch{next: j.offset(), time: time.Now()}
	var frames []byte
	for _, source := range slices.Sorted(maps.Keys(w.pending)) {
		p := w.pending[source]
		var err error
		if frames, err = appendFrame(frames, &p); err != nil {
			return false
		}
	}
	b.add(frames)
	ok, err := j.hasRoom(w, b.size)
	if err == nil && ok {
		err = j.put(w, b)
	}
	if err != nil {
		j.log.Debug("positions cannot be written, will be repeated", "err", err)
	}
	if err == nil && ok {
		j.publish(w, b)
	}
	j.setNeed(0) // nobody waits
	return err == nil && ok
}
