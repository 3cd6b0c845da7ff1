package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// cursor is how far a consumer has acknowledged the log.
type cursor struct {
	offset    uint64 // of the first record not acknowledged
	positions map[string]event.Position
	lost      *stretch
}

// stretch is a part of the log, from a consumer's cursor on, that has been
// dropped before it was acknowledged. It is not changed, but replaced.
type stretch struct {
	until     uint64 // offset of the first record behind it
	positions map[string]event.Position
	missed    map[string]int // records by source, those that were read not among them
}

// storedCursor is the form in which a cursor is kept.
type storedCursor struct {
	Name      string          `json:"name"`
	Offset    uint64          `json:"offset"`
	Positions storedPositions `json:"positions,omitempty"`
	Lost      *storedStretch  `json:"lost,omitempty"`
}

type storedStretch struct {
	Until     uint64          `json:"until"`
	Positions storedPositions `json:"positions,omitempty"`
	Missed    map[string]int  `json:"missed,omitempty"`
}

func encodeCursor(name string, c cursor) ([]byte, error) {
	stored := storedCursor{Name: name, Offset: c.offset, Positions: storePositions(c.positions)}
	if c.lost != nil {
		stored.Lost = &storedStretch{
			Until: c.lost.until, Positions: storePositions(c.lost.positions), Missed: c.lost.missed,
		}
	}
	return json.Marshal(stored)
}

func decodeCursor(name string, b []byte) (cursor, error) {
	var stored storedCursor
	if err := json.Unmarshal(b, &stored); err != nil {
		return cursor{}, err
	}
	if stored.Name != name {
		return cursor{}, fmt.Errorf("it is that of %q", stored.Name)
	}
	if stored.Offset == 0 {
		return cursor{}, errors.New("it has no offset")
	}
	c := cursor{offset: stored.Offset}
	var err error
	if c.positions, err = stored.Positions.restore(); err != nil {
		return cursor{}, err
	}
	if l := stored.Lost; l != nil {
		c.lost = &stretch{until: l.Until, missed: l.Missed}
		if c.lost.positions, err = l.Positions.restore(); err != nil {
			return cursor{}, err
		}
	}
	return c, nil
}

// A cursor file has two slots of equal size, each with a sealed content: the
// number of the write, then the cursor as JSON. Writes go to one slot until it
// has been synced, then to the other: whatever becomes of a write, the cursor
// that was synced last is still there, or a later one. Nothing is allocated by
// a write, so that it also succeeds on a full disk.
const (
	magicCursor  = "HSC1" // the last character is the version of the format
	minSlotBytes = 4 << 10
	numberBytes  = 8
	cursorSuffix = ".cursor"
)

func cursorName(consumer string) string { return url.PathEscape(consumer) + cursorSuffix }

func parseCursorName(name string) (consumer string, ok bool) {
	escaped, ok := strings.CutSuffix(name, cursorSuffix)
	if !ok {
		return "", false
	}
	consumer, err := url.PathUnescape(escaped)
	return consumer, err == nil && cursorName(consumer) == name
}

// cursorFile is for one goroutine at a time.
type cursorFile struct {
	storage storage
	name    string
	f       file  // nil: it has to be made anew
	slot    int64 // to write to
	dirty   bool  // it was written to since the last sync
	size    int64 // of a slot
	number  uint64
}

// write hands the content over to the operating system.
func (c *cursorFile) write(content []byte) error {
	c.number++
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, numberBytes+len(content)), c.number)
	b = seal(magicCursor, append(b, content...))
	if c.f == nil || int64(len(b)) > c.size {
		return c.create(b)
	}
	c.dirty = true
	if _, err := c.f.WriteAt(b, c.slot*c.size); err != nil {
		return fmt.Errorf("write %s: %w", c.name, err)
	}
	return nil
}

// create makes the file anew, with slots that are large enough.
func (c *cursorFile) create(b []byte) error {
	size := int64(minSlotBytes)
	for size < int64(len(b)) {
		size *= 2
	}
	whole := make([]byte, 2*size)
	copy(whole, b)
	f, err := createSynced(c.storage, c.name, whole)
	if err != nil {
		return fmt.Errorf("create %s: %w", c.name, err)
	}
	c.close()
	c.f, c.size, c.slot, c.dirty = f, size, 1, false
	return nil
}

// sync makes what was written durable.
func (c *cursorFile) sync() error {
	if c.f == nil || !c.dirty {
		return nil
	}
	if err := c.f.Sync(); err != nil {
		c.close() // not to be trusted any more: the next write makes it anew
		return fmt.Errorf("sync %s: %w", c.name, err)
	}
	c.slot, c.dirty = 1-c.slot, false
	return nil
}

func (c *cursorFile) close() {
	if c.f != nil {
		c.f.Close()
	}
	c.f = nil
}

// openCursor reads a cursor file. If there is none, the error is
// fs.ErrNotExist; if neither slot is sound, the error says why, and the file can
// be written to all the same.
func openCursor(s storage, name string) (*cursorFile, []byte, error) {
	c := &cursorFile{storage: s, name: name}
	f, err := s.open(name)
	if err != nil {
		return c, nil, err
	}
	defer f.Close()
	whole, err := f.Size()
	if err != nil {
		return c, nil, err
	}
	if whole > 2*maxSealed {
		return c, nil, fmt.Errorf("%d bytes are not believable", whole)
	}
	b := make([]byte, whole)
	if _, err := f.ReadAt(b, 0); err != nil {
		return c, nil, err
	}
	content, number, err := latestSlot(b)
	c.number = number
	return c, content, err
}

// latestSlot returns the content of the sound slot that was written last.
func latestSlot(b []byte) (content []byte, number uint64, err error) {
	half := len(b) / 2
	var errs []error
	for _, slot := range [][]byte{b[:half], b[half:]} {
		c, _, err := unseal(magicCursor, slot)
		if err == nil && len(c) < numberBytes {
			err = errDamaged
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if n := binary.LittleEndian.Uint64(c); content == nil || n > number {
			content, number = c[numberBytes:], n
		}
	}
	if content == nil {
		return nil, 0, errors.Join(errs...)
	}
	return content, number, nil
}

func clonePositions(p map[string]event.Position) map[string]event.Position {
	if p == nil {
		return make(map[string]event.Position)
	}
	return maps.Clone(p)
}
