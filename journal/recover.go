package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// recover reads what a storage holds and returns the state in which writing goes
// on. What is damaged stays as it is, for the readers to step over; only behind
// the last sound frame of the last segment the file is cut.
func (j *Journal) recover() (*writer, error) {
	segments, err := j.listSegments()
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		w := &writer{seg: &segment{id: -1}}
		return w, j.roll(w)
	}
	j.segments = segments
	last := segments[len(segments)-1]
	end, err := j.findEnd(last)
	if err != nil {
		return nil, err
	}
	w := &writer{seg: last}
	if w.f, err = j.storage.open(last.name()); err != nil {
		return nil, fmt.Errorf("open segment %s: %w", last.name(), err)
	}
	if err := j.continueAt(w, end); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// listSegments returns the segments in the order of their names, and removes
// what was not finished.
func (j *Journal) listSegments() ([]*segment, error) {
	names, err := j.storage.list()
	if err != nil {
		return nil, err
	}
	var segments []*segment
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) {
			if err := j.storage.remove(name); err != nil {
				return nil, fmt.Errorf("remove what was not finished: %w", err)
			}
			continue
		}
		base, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		f, err := j.storage.open(name)
		if err != nil {
			return nil, fmt.Errorf("open segment %s: %w", name, err)
		}
		size, err := f.Size()
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("size of segment %s: %w", name, err)
		}
		segments = append(segments, &segment{base: base, size: size})
	}
	slices.SortFunc(segments, func(a, b *segment) int { return cmp.Compare(a.base, b.base) })
	for i, s := range segments {
		s.id = i
	}
	return segments, nil
}

// lastEnd is how the last segment ends.
type lastEnd struct {
	header   bool  // its header is sound
	size     int64 // what is behind was not synced, or is damaged
	readable bool  // all of it could be read
}

// findEnd looks for the end of what had been synced into the last segment. A
// loss of power may have left any part of the last group: it is cut before the
// first hole, so that the tail is before it too and nothing is missed. A hole
// before a later group is damage, and stays.
func (j *Journal) findEnd(last *segment) (lastEnd, error) {
	r := reader{storage: j.storage}
	defer r.reset()
	end := lastEnd{readable: true}
	if err := r.enter(last); err != nil {
		return end, err
	}
	r.limit = last.size
	if _, n, err := r.header(); err == nil {
		end.header, end.size = true, int64(n)
	}
	r.reset()
	v := view{segments: []*segment{last}, size: last.size, next: math.MaxUint64}
	expected, torn := last.base, int64(-1)
	for {
		f, err := r.peek(v, expected)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if end.readable {
				j.log.Error("the journal cannot be read; what cannot is taken for damaged", "err", err)
			}
			end.readable = false
			continue // it gives up on the block after some attempts
		}
		hole := r.pos != end.size
		r.advance()
		switch {
		case f.offset < expected: // not where it belongs
		case f.index == 0:
			torn = -1
		case hole && torn < 0:
			torn = end.size
		}
		expected = max(expected, f.after())
		end.size = r.pos
	}
	if torn >= 0 {
		end.size = torn
	}
	return end, nil
}

// continueAt prepares the last segment for writing, or begins a new one.
func (j *Journal) continueAt(w *writer, end lastEnd) error {
	last := w.seg
	if cut := last.size - end.size; cut > 0 && end.readable {
		if err := w.f.Truncate(end.size); err != nil {
			return fmt.Errorf("cut segment %s: %w", last.name(), err)
		}
		j.log.Warn("the end of the journal was not written whole, or is damaged; it was cut off",
			"segment", last.name(), "bytes", cut)
		j.cutBytes += cut
		last.size = end.size
	}
	// What a killed process wrote and did not sync is about to be read.
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("sync segment %s: %w", last.name(), err)
	}
	for _, s := range j.segments {
		j.used += s.size
	}
	j.size, w.size = last.size, last.size
	if err := j.findTail(); err != nil {
		return err
	}
	if !end.header || !end.readable {
		return j.roll(w)
	}
	return nil
}

// findTail finds the next offset and the positions behind everything. It reads
// the last segment, and those before it back to one whose header tells the
// positions.
func (j *Journal) findTail() error {
	r := reader{storage: j.storage}
	defer r.reset()
	from := len(j.segments) - 1
	for ; ; from-- {
		s := j.segments[from]
		if err := r.enter(s); err != nil {
			return err
		}
		r.limit = s.size
		info, _, err := r.header()
		if err == nil {
			j.tail, err = info.Positions.restore()
		}
		if err == nil {
			break
		}
		j.log.Error("the header of a segment is damaged; the positions are found in what is before and behind it", "segment", s.name(), "err", err)
		if from == 0 {
			j.tail = make(map[string]event.Position)
			break
		}
	}
	r.reset()
	j.next = j.segments[from].base
	v := view{segments: j.segments[from:], size: j.size, next: math.MaxUint64}
	for {
		f, err := r.peek(v, j.next)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			continue // it gives up on the block after some attempts
		}
		r.advance()
		if f.offset < j.next {
			continue // not where it belongs: no reader believes it either
		}
		j.next = f.after()
		var rec event.Record
		if rec.UnmarshalBinary(f.payload) == nil && rec.OnlySink == "" {
			j.tail[rec.Source] = rec.Position
		}
	}
	j.next = max(j.next, j.segments[len(j.segments)-1].base)
	return nil
}
