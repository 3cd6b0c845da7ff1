package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/hindsight-events/hindsight/event"
)

const (
	readBytes = 128 << 10

	// After so many failures in a row a block counts as damaged.
	readAttempts = 5
	blockBytes   = 4 << 10
)

// Reader reads frames in order and skips damage, which shows in the offsets. It is for one
// goroutine.
type Reader struct {
	fs        FS
	segment   *Segment // nil: Peek opens the segment of its offset
	f         File
	pos       int64 // of the next frame in f
	limit     int64 // bytes of f that are committed
	buf       []byte
	memory    []byte // that buf is a part of; nil at the end of the log
	searching bool   // pos is not the start of a frame
	peeked    bool
	frame     Frame // if peeked
	failures  int   // in a row
}

// NewReader returns a reader that starts at the offset of its first Peek.
func NewReader(fs FS) *Reader { return &Reader{fs: fs} }

// Segment returns the segment of the frame that was peeked last.
func (r *Reader) Segment() *Segment { return r.segment }

// Location returns the address of the frame that was peeked.
func (r *Reader) Location() Location {
	return Location{Segment: uint32(r.segment.ID), Start: uint32(r.pos), Bytes: uint32(frameHead + r.frame.length)}
}

// Reset closes the reader's file; the next Peek starts at its offset.
func (r *Reader) Reset() {
	if r.f != nil {
		r.f.Close()
	}
	*r = Reader{fs: r.fs, memory: r.memory}
}

// Peek returns the next frame without advancing, or io.EOF at the end of the log. After a Reset
// it may return frames before offset first. After any other error, the call can be repeated.
func (r *Reader) Peek(log Log, offset uint64) (Frame, error) {
	for !r.peeked {
		if r.segment == nil {
			if err := r.openSegment(log.containing(offset)); err != nil {
				return Frame{}, err
			}
		}
		r.limit = log.size(r.segment)
		found, err := r.findFrame()
		if err != nil {
			if r.failures++; r.failures < readAttempts {
				return Frame{}, fmt.Errorf("read segment %s at %d: %w", r.segment.Name(), r.pos, err)
			}
			r.skip(min(blockBytes-r.pos%blockBytes, r.limit-r.pos))
			r.searching = true
			continue
		}
		r.failures = 0
		next := log.next(r.segment)
		// Frames that a failed sync left behind were written to the next segment again.
		leftover := found && next != nil && !r.frame.PositionOnly && r.frame.Offset >= next.Base
		switch {
		case found && !leftover:
			r.peeked = true
		case next != nil:
			if err := r.openSegment(next); err != nil {
				return Frame{}, err
			}
		default:
			r.releaseMemory()
			return Frame{}, io.EOF
		}
	}
	return r.frame, nil
}

// readMemory is shared by readers, most of which are at the end of the log.
var readMemory = sync.Pool{New: func() any { return new([readBytes]byte) }}

func (r *Reader) releaseMemory() {
	if len(r.buf) > 0 {
		return
	}
	if len(r.memory) == readBytes {
		readMemory.Put((*[readBytes]byte)(r.memory))
	}
	r.memory, r.buf = nil, nil
}

// Advance moves past the frame that was peeked. Its payload becomes invalid.
func (r *Reader) Advance() {
	r.skip(int64(frameHead + r.frame.length))
	r.peeked = false
}

// openSegment moves to the beginning of a segment. A missing file reads as an empty one.
func (r *Reader) openSegment(s *Segment) error {
	f, err := r.fs.Open(s.Name())
	if errors.Is(err, fs.ErrNotExist) {
		f, err = newMemoryFile().open(), nil
	}
	if err != nil {
		return fmt.Errorf("open segment %s: %w", s.Name(), err)
	}
	r.Reset()
	r.segment, r.f = s, f
	return nil
}

// findFrame reads the next frame into r.frame, or returns false at the limit. Damage is no error.
func (r *Reader) findFrame() (bool, error) {
	if r.pos == 0 && !r.searching {
		if err := r.skipHeader(); err != nil {
			return false, err
		}
	}
	for {
		if r.searching {
			if found, err := r.search(); err != nil || !found {
				return false, err
			}
		}
		if r.limit-r.pos < frameHead {
			return false, nil
		}
		if err := r.fill(frameHead); err != nil {
			return false, err
		}
		frame, err := parseFrameHead(r.buf)
		if err == nil && r.pos+int64(frameHead+frame.length) > r.limit {
			err = ErrDamaged
		}
		if err == nil {
			if err := r.fill(frameHead + frame.length); err != nil {
				return false, err
			}
			frame, err = frame.withPayload(r.buf)
		}
		if r.searching = err != nil; r.searching {
			// Not past the payload: if the head is a stray one, there are intact frames in it.
			r.skip(1)
			continue
		}
		r.frame = frame
		return true, nil
	}
}

// skipHeader moves past the header of the segment. Readers do not need a damaged one.
func (r *Reader) skipHeader() error {
	_, n, err := r.header()
	if errors.As(err, new(fileError)) {
		return err
	}
	r.searching = err != nil
	r.skip(int64(n))
	return nil
}

// fileError is an error of the file, not of its content.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

// header decodes the header; the reader is at the beginning of the segment.
func (r *Reader) header() (positions map[string]event.Position, length int, err error) {
	for n := blockHead; ; n = length {
		if int64(n) > r.limit {
			return nil, 0, ErrDamaged
		}
		if err := r.fill(n); err != nil {
			return nil, 0, fileError{err}
		}
		positions, length, err = decodeHeader(r.buf)
		if err == nil {
			return positions, length, nil
		}
		if !errors.Is(err, errShort) {
			return nil, 0, err
		}
	}
}

// search moves to the next bytes that may be a frame, or returns false at the limit.
func (r *Reader) search() (bool, error) {
	for r.limit-r.pos >= frameHead {
		if err := r.fill(frameHead); err != nil {
			return false, err
		}
		i := bytes.Index(r.buf, []byte(magicPrefix))
		if i == 0 {
			return true, nil
		}
		if i < 0 {
			i = len(r.buf) - len(magicPrefix) + 1
		}
		r.skip(int64(i))
	}
	r.skip(r.limit - r.pos)
	return false, nil
}

// fill reads at least n bytes from pos into buf. There are n bytes before the limit.
func (r *Reader) fill(n int) error {
	if len(r.buf) >= n {
		return nil
	}
	before := r.buf
	if n > readBytes && len(r.memory) < n {
		r.memory = make([]byte, n)
	} else if n <= readBytes && len(r.memory) != readBytes {
		r.memory = readMemory.Get().(*[readBytes]byte)[:]
	}
	have := copy(r.memory, before)
	end := min(int64(len(r.memory)), r.limit-r.pos)
	got, err := r.f.ReadAt(r.memory[have:end], r.pos+int64(have))
	r.buf = r.memory[:have+got]
	if len(r.buf) >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		// The file is shorter than the committed bytes. Zeros are damage.
		clear(r.memory[have+got : n])
		r.buf = r.memory[:n]
		return nil
	}
	return err
}

// skip moves on by n bytes.
func (r *Reader) skip(n int64) {
	r.pos += n
	r.buf = r.buf[min(n, int64(len(r.buf))):]
}

// ReadHeader returns the positions of all sources before the first record of a segment.
func ReadHeader(fs FS, s *Segment) (map[string]event.Position, error) {
	r := NewReader(fs)
	defer r.Reset()
	err := r.openSegment(s)
	if err == nil {
		r.limit, err = r.f.Size()
	}
	var positions map[string]event.Position
	if err == nil {
		positions, _, err = r.header()
	}
	if err != nil {
		return nil, fmt.Errorf("read header of segment %s: %w", s.Name(), err)
	}
	return positions, nil
}
