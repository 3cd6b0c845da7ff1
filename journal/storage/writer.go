package storage

import (
	"errors"
	"fmt"
	"slices"
)

// Writer appends frames to the last segment. It is for one goroutine.
type Writer struct {
	fs      FS
	segment *Segment
	f       File
	size    int64 // committed bytes of f
	broken  bool  // f must not be written any more
}

// Size returns the committed bytes of the segment.
func (w *Writer) Size() int64 { return w.size }

// NeedsSegment reports whether so many bytes must go to a new segment, given the largest size of
// one and the next offset. A group larger than a segment goes to an empty one.
func (w *Writer) NeedsSegment(bytes, maxBytes int64, next uint64) bool {
	return w.broken || w.size+bytes > maxBytes && w.segment.Base < next
}

// StartSegment creates a segment with the given header, to which the next frames go. base is the
// offset of its first record.
func (w *Writer) StartSegment(base uint64, header []byte) error {
	f, err := createSynced(w.fs, segmentName(base), header)
	if err != nil {
		// The file may exist after a crash. Then it begins with the next record, so that no
		// record may be written to the current segment.
		w.broken = true
		return fmt.Errorf("create segment %s: %w", segmentName(base), err)
	}
	id := 0
	if w.segment != nil {
		id = w.segment.ID + 1
		w.segment.Size = w.size
	}
	w.Close()
	*w = Writer{fs: w.fs, segment: &Segment{ID: id, Base: base}, f: f, size: int64(len(header))}
	return nil
}

// Extend returns the log with the segment that was started last.
func (w *Writer) Extend(log Log) Log {
	segments := slices.Clone(log.Segments)
	if n := len(segments); n > 0 && segments[n-1].Base == w.segment.Base {
		segments = segments[:n-1] // it had no records, and its file was replaced
	}
	return Log{Segments: append(segments, w.segment), Size: w.size}
}

// Write appends frames and syncs them. After an error none of them is in the log.
func (w *Writer) Write(frames [][]byte) error {
	end := w.size
	for _, b := range frames {
		n, err := w.f.WriteAt(b, end)
		end += int64(n)
		if err != nil {
			if truncateErr := w.f.Truncate(w.size); truncateErr != nil {
				w.broken = true
				err = errors.Join(err, truncateErr)
			}
			return fmt.Errorf("write segment %s: %w", w.segment.Name(), err)
		}
	}
	if err := w.f.Sync(); err != nil {
		w.broken = true
		_ = w.f.Truncate(w.size) // if this fails too, readers skip the leftover frames
		return fmt.Errorf("sync segment %s: %w", w.segment.Name(), err)
	}
	w.size = end
	return nil
}

// Close closes the segment's file.
func (w *Writer) Close() {
	if w.f != nil {
		w.f.Close()
	}
}
