package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
)

// view is what of the log may be read: everything that has been committed.
type view struct {
	segments []*segment
	size     int64  // of the last segment
	next     uint64 // offset after the last record
	appended <-chan struct{}
}

// view returns the log as it is now. Journal.mu is held.
func (j *Journal) view() view {
	return view{segments: j.segments, size: j.size, next: j.next, appended: j.appended}
}

// after returns the segment after the one with an id.
func (v view) after(id int) *segment {
	for _, s := range v.segments {
		if s.id > id {
			return s
		}
	}
	return nil
}

// containing returns the segment in which an offset is, or would be if it had
// not been let go of or lost.
func (v view) containing(offset uint64) *segment {
	found := v.segments[0]
	for _, s := range v.segments {
		if s.base <= offset {
			found = s
		}
	}
	return found
}

// reader reads the frames of the log one after the other and steps over what is
// damaged. Its user sees that from the offsets. It is for one goroutine.
type reader struct {
	storage storage
	seg     *segment // nil: the next peek begins where its offset is
	f       file
	pos     int64  // of the next frame in f
	limit   int64  // what lies behind is not committed, and may not be read
	buf     []byte // bytes of f from pos on
	room    []byte // what buf is a part of
	lost    bool   // at pos there is no frame: look for one
	peeked  bool
	head    frame // if peeked
	errors  int   // in a row
}

const (
	readBytes = 128 << 10

	// After so many failures in a row, what cannot be read counts as damaged,
	// a block at a time.
	readAttempts = 5
	blockBytes   = 4 << 10
)

// errUnreadable is an error of the storage. The same call may succeed later.
type errUnreadable struct{ err error }

func (e errUnreadable) Error() string { return e.err.Error() }
func (e errUnreadable) Unwrap() error { return e.err }

// segmentName is where the reader is.
func (r *reader) segmentName() string {
	if r.seg == nil {
		return ""
	}
	return r.seg.name()
}

// reset makes the next peek begin anew.
func (r *reader) reset() {
	if r.f != nil {
		r.f.Close()
	}
	*r = reader{storage: r.storage, room: r.room}
}

// peek returns the next frame without moving on, or io.EOF where the view ends.
// After a reset, the first frames it returns may lie before offset.
func (r *reader) peek(v view, offset uint64) (frame, error) {
	for !r.peeked {
		if r.seg == nil {
			if err := r.enter(v.containing(offset)); err != nil {
				return frame{}, err
			}
		}
		if r.seg == v.segments[len(v.segments)-1] {
			r.limit = v.size
		} else {
			r.limit = r.seg.size
		}
		found, err := r.parse()
		if err != nil {
			r.errors++
			if r.errors < readAttempts {
				return frame{}, errUnreadable{fmt.Errorf("read segment %s at %d: %w", r.seg.name(), r.pos, err)}
			}
			r.skip(min(blockBytes-r.pos%blockBytes, r.limit-r.pos))
			r.lost = true
			continue
		}
		r.errors = 0
		following := v.after(r.seg.id)
		// Behind a failed sync, frames may be left that were written again into
		// the next segment.
		leftover := found && following != nil && !r.head.position && r.head.offset >= following.base
		switch {
		case found && !leftover:
			r.peeked = true
		case following != nil:
			if err := r.enter(following); err != nil {
				return frame{}, err
			}
		default:
			return frame{}, io.EOF
		}
	}
	return r.head, nil
}

// advance moves on to the frame after the one peeked at. Its payload is not
// valid any more.
func (r *reader) advance() {
	r.skip(int64(frameHead + r.head.length))
	r.peeked = false
}

// enter goes to the beginning of a segment.
func (r *reader) enter(s *segment) error {
	f, err := r.storage.open(s.name())
	if errors.Is(err, fs.ErrNotExist) {
		f, err = &memoryFile{}, nil // it has been taken away: as if it were empty
	}
	if err != nil {
		return errUnreadable{fmt.Errorf("open segment %s: %w", s.name(), err)}
	}
	r.reset()
	r.seg, r.f = s, f
	return nil
}

// parse finds the next frame and puts it into r.head. An error is
// one of reading.
func (r *reader) parse() (bool, error) {
	if r.pos == 0 && !r.lost {
		if err := r.parseHeader(); err != nil {
			return false, err
		}
	}
	for {
		if r.lost {
			ok, err := r.search()
			if err != nil || !ok {
				return false, err
			}
		}
		if r.limit-r.pos < frameHead {
			return false, nil
		}
		if err := r.fill(frameHead); err != nil {
			return false, err
		}
		head, err := parseFrameHead(r.buf)
		if err != nil {
			r.skip(1)
			r.lost = true
			continue
		}
		r.lost = false
		if r.pos+int64(frameHead+head.length) > r.limit {
			r.skip(1) // the end of the file is missing
			r.lost = true
			continue
		}
		if err := r.fill(frameHead + head.length); err != nil {
			return false, err
		}
		head.payload = r.buf[frameHead : frameHead+head.length]
		if crc32.Checksum(head.payload, castagnoli) != head.sum {
			// Not stepped over: where the head is a stray one, there are sound
			// frames in what it calls its payload.
			r.skip(1)
			r.lost = true
			continue
		}
		r.head = head
		return true, nil
	}
}

// parseHeader steps over the header of the segment. A damaged one is not fatal:
// the name of the file carries what is needed.
func (r *reader) parseHeader() error {
	_, n, err := r.header()
	if err == nil {
		r.skip(int64(n))
		return nil
	}
	if r.pos == 0 && errors.As(err, new(errUnreadable)) {
		return err
	}
	r.lost = true
	return nil
}

// header decodes the header of the segment; the reader is at its beginning. Of
// the errors, only errUnreadable is one of reading.
func (r *reader) header() (segmentInfo, int, error) {
	for n := segmentHead; ; {
		if int64(n) > r.limit {
			return segmentInfo{}, 0, errDamaged
		}
		if err := r.fill(n); err != nil {
			return segmentInfo{}, 0, errUnreadable{err}
		}
		info, length, err := decodeSegmentHeader(r.buf)
		if !errors.Is(err, errShort) {
			return info, length, err
		}
		n = length
	}
}

// search moves to the next place that may be a frame, or returns false if there
// is none before the end.
func (r *reader) search() (bool, error) {
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

// fill sees to it that at least n bytes from pos on are in the buffer; there are
// so many before limit.
func (r *reader) fill(n int) error {
	if len(r.buf) >= n {
		return nil
	}
	if len(r.room) < n || len(r.room) > readBytes && n <= readBytes {
		r.room = make([]byte, max(n, readBytes))
	}
	have := copy(r.room, r.buf)
	want := min(int64(len(r.room)), r.limit-r.pos)
	got, err := r.f.ReadAt(r.room[have:want], r.pos+int64(have))
	r.buf = r.room[:have+got]
	if len(r.buf) >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		// Shorter than it was when it was committed: zeros are no frame.
		clear(r.room[have+got : n])
		r.buf = r.room[:n]
		return nil
	}
	return err
}

// skip moves on by n bytes.
func (r *reader) skip(n int64) {
	r.pos += n
	r.buf = r.buf[min(n, int64(len(r.buf))):]
}
