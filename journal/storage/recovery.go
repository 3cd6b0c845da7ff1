package storage

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// Recovered is the state of a log after it was opened.
type Recovered struct {
	Log            Log
	Writer         *Writer
	Next           uint64                    // offset of the next record
	Positions      map[string]event.Position // of all sources, after the last record
	TruncatedBytes int64
}

// Recover opens the log. Damage is logged and left to the readers, except that the last segment
// is truncated after its last intact group. An error means that the files cannot be accessed.
func Recover(fs FS, log *slog.Logger) (*Recovered, error) {
	segments, err := listSegments(fs)
	if err != nil {
		return nil, err
	}
	r := recovery{fs: fs, log: log, Recovered: Recovered{
		Log:       Log{Segments: segments},
		Writer:    &Writer{fs: fs},
		Next:      1,
		Positions: make(map[string]event.Position),
	}}
	intact := false
	if len(segments) > 0 {
		intact, err = r.openLast()
		if err == nil {
			err = r.findPositions()
		}
	}
	if err == nil && !intact {
		err = r.startSegment()
	}
	if err != nil {
		r.Writer.Close()
		return nil, err
	}
	return &r.Recovered, nil
}

type recovery struct {
	Recovered
	fs  FS
	log *slog.Logger
}

// listSegments returns the segments in the order of their names, and removes unfinished files.
func listSegments(fs FS) ([]*Segment, error) {
	names, err := fs.List()
	if err != nil {
		return nil, err
	}
	var segments []*Segment
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) {
			if err := fs.Remove(name); err != nil {
				return nil, fmt.Errorf("remove unfinished file: %w", err)
			}
			continue
		}
		base, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		f, err := fs.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open segment %s: %w", name, err)
		}
		size, err := f.Size()
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("size of segment %s: %w", name, err)
		}
		segments = append(segments, &Segment{Base: base, Size: size})
	}
	slices.SortFunc(segments, func(a, b *Segment) int { return cmp.Compare(a.Base, b.Base) })
	for i, s := range segments {
		s.ID = i
	}
	return segments, nil
}

// openLast opens the last segment for writing and truncates it. It reports whether it can be
// written: whether its header is intact and all of it could be read.
func (r *recovery) openLast() (intact bool, err error) {
	last := r.Log.Last()
	r.Log.Size = last.Size
	size, header, readable, err := r.findEnd()
	if err != nil {
		return false, err
	}
	w := r.Writer
	w.segment = last
	if w.f, err = r.fs.Open(last.Name()); err != nil {
		return false, fmt.Errorf("open segment %s: %w", last.Name(), err)
	}
	if excess := last.Size - size; excess > 0 && readable {
		if err := w.f.Truncate(size); err != nil {
			return false, fmt.Errorf("truncate segment %s: %w", last.Name(), err)
		}
		r.log.Warn("incomplete or damaged end of the journal truncated", "segment", last.Name(), "bytes", excess)
		r.TruncatedBytes = excess
		last.Size = size
	}
	// A killed process may have written frames that are not synced.
	if err := w.f.Sync(); err != nil {
		return false, fmt.Errorf("sync segment %s: %w", last.Name(), err)
	}
	w.size, r.Log.Size = last.Size, last.Size
	return header && readable, nil
}

// findEnd finds the end of the last intact group in the last segment. A hole in the last group is
// the result of a crash: the group ends before it, and so do the recovered positions, so that the
// rest is read from the API server again. A hole before a later group is damage.
func (r *recovery) findEnd() (size int64, header, readable bool, err error) {
	last := r.Log.Last()
	reader := NewReader(r.fs)
	defer reader.Reset()
	if err := reader.openSegment(last); err != nil {
		return 0, false, false, err
	}
	reader.limit = last.Size
	if _, n, err := reader.header(); err == nil {
		header, size = true, int64(n)
	}
	expected, torn := last.Base, int64(-1)
	unreadable, err := readFrames(r.fs, Log{Segments: []*Segment{last}, Size: last.Size}, func(f Frame, start int64) {
		switch {
		case f.Offset < expected: // a stray frame
		case f.index == 0:
			torn = -1
		case start != size && torn < 0:
			torn = size
		}
		expected = max(expected, f.Next())
		size = start + int64(frameHead+f.length)
	})
	if unreadable != nil {
		r.log.Error("the end of the journal cannot be read; unreadable blocks count as damaged", "err", unreadable)
	}
	if torn >= 0 {
		size = torn
	}
	return size, header, unreadable == nil, err
}

// findPositions finds the next offset and the positions after all records. It reads the last
// segment and, if its header is damaged, the segments before it back to an intact header.
func (r *recovery) findPositions() error {
	from := len(r.Log.Segments) - 1
	for ; ; from-- {
		s := r.Log.Segments[from]
		var err error
		if r.Positions, err = ReadHeader(r.fs, s); err == nil {
			break
		}
		r.log.Error("segment header is damaged; positions are recovered from records", "segment", s.Name(), "err", err)
		if from == 0 {
			r.Positions = make(map[string]event.Position)
			break
		}
	}
	log := Log{Segments: r.Log.Segments[from:], Size: r.Log.Size}
	r.Next = log.First().Base
	_, err := readFrames(r.fs, log, func(f Frame, _ int64) {
		if f.Offset < r.Next {
			return // a stray frame
		}
		r.Next = f.Next()
		var record event.Record
		if record.UnmarshalBinary(f.Payload) == nil && record.OnlySink == "" {
			r.Positions[record.Source] = record.Position
		}
	})
	r.Next = max(r.Next, log.Last().Base)
	return err
}

// readFrames visits the frames of a log and where they start in their segments. It skips blocks
// that cannot be read; unreadable is the first error of one.
func readFrames(fs FS, log Log, visit func(f Frame, start int64)) (unreadable, err error) {
	reader := NewReader(fs)
	defer reader.Reset()
	for failures := 0; ; {
		f, err := reader.Peek(log, log.First().Base)
		switch {
		case errors.Is(err, io.EOF):
			return unreadable, nil
		case err != nil:
			if failures++; failures == readAttempts { // not a block, which is skipped before
				return unreadable, err
			}
			if unreadable == nil {
				unreadable = err
			}
		default:
			failures = 0
			visit(f, reader.pos)
			reader.Advance()
		}
	}
}

func (r *recovery) startSegment() error {
	header, err := EncodeHeader(r.Next, r.Positions)
	if err == nil {
		err = r.Writer.StartSegment(r.Next, header)
	}
	if err == nil {
		r.Log = r.Writer.Extend(r.Log)
	}
	return err
}
