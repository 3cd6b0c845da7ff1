package storage

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/hindsight-events/hindsight/event"
)

// Cursor is how far a consumer has acknowledged the log.
type Cursor struct {
	Offset    uint64 // of the first record not acknowledged
	Positions map[string]event.Position
	Dropped   *DroppedRange
}

// DroppedRange is a part of the log after a cursor that was dropped. It is replaced, not changed.
type DroppedRange struct {
	// From is the offset of the first record that had not been read. Those before it were in
	// flight and are lost only if the consumer starts again. It is not stored, but Until after a
	// restart.
	From      uint64
	Until     uint64                    // offset after the range
	Positions map[string]event.Position // at Until
	Missed    map[string]int            // records from From on, by source
}

// KeepFrom is the offset of the first record that the consumer needs.
func (c Cursor) KeepFrom() uint64 {
	if c.Dropped != nil {
		return max(c.Offset, c.Dropped.Until)
	}
	return c.Offset
}

type storedCursor struct {
	Name      string              `json:"name"`
	Offset    uint64              `json:"offset"`
	Positions storedPositions     `json:"positions,omitempty"`
	Dropped   *storedDroppedRange `json:"lost,omitempty"`
}

type storedDroppedRange struct {
	Until     uint64          `json:"until"`
	Positions storedPositions `json:"positions,omitempty"`
	Missed    map[string]int  `json:"missed,omitempty"`
}

func encodeCursor(consumer string, c Cursor) ([]byte, error) {
	stored := storedCursor{Name: consumer, Offset: c.Offset, Positions: storePositions(c.Positions)}
	if d := c.Dropped; d != nil {
		stored.Dropped = &storedDroppedRange{Until: d.Until, Positions: storePositions(d.Positions), Missed: d.Missed}
	}
	return json.Marshal(stored)
}

func decodeCursor(consumer string, b []byte) (c Cursor, err error) {
	var stored storedCursor
	if err := json.Unmarshal(b, &stored); err != nil {
		return c, err
	}
	if stored.Name != consumer {
		return c, fmt.Errorf("cursor belongs to consumer %q", stored.Name)
	}
	if stored.Offset == 0 {
		return c, errors.New("cursor has no offset")
	}
	c.Offset = stored.Offset
	if c.Positions, err = stored.Positions.restore(); err != nil {
		return c, err
	}
	if d := stored.Dropped; d != nil {
		c.Dropped = &DroppedRange{From: d.Until, Until: d.Until, Missed: d.Missed}
		c.Dropped.Positions, err = d.Positions.restore()
	}
	return c, err
}

const (
	magicCursor  = "HSC1"
	minSlotBytes = 4 << 10
	numberBytes  = 8
	cursorSuffix = ".cursor"
)

func cursorName(consumer string) string { return url.PathEscape(consumer) + cursorSuffix }

// CursorFile stores the cursor of a consumer. It is for one goroutine at a time.
type CursorFile struct {
	fs       FS
	consumer string
	f        File   // nil: to be created
	slot     int64  // to write to
	slotSize int64  // in bytes
	dirty    bool   // written since the last sync
	number   uint64 // of the last write
}

// OpenCursor reads the cursor of a consumer. If there is none, the error is fs.ErrNotExist. The
// file can be written after any error.
func OpenCursor(fs FS, consumer string) (*CursorFile, Cursor, error) {
	c := &CursorFile{fs: fs, consumer: consumer}
	f, err := fs.Open(cursorName(consumer))
	if err != nil {
		return c, Cursor{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return c, Cursor{}, err
	}
	if size > 2*maxBlock {
		return c, Cursor{}, fmt.Errorf("cursor file of %d bytes is larger than %d", size, 2*maxBlock)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return c, Cursor{}, err
	}
	var content []byte
	if content, c.number, err = latestSlot(b); err != nil {
		return c, Cursor{}, err
	}
	cursor, err := decodeCursor(consumer, content)
	return c, cursor, err
}

// Write hands the cursor over to the operating system.
func (c *CursorFile) Write(cursor Cursor) error {
	content, err := encodeCursor(c.consumer, cursor)
	if err != nil {
		return fmt.Errorf("encode cursor: %w", err)
	}
	c.number++
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, numberBytes+len(content)), c.number)
	b = appendBlock(nil, magicCursor, append(b, content...))
	if c.f == nil || int64(len(b)) > c.slotSize {
		return c.create(b)
	}
	c.dirty = true
	if _, err := c.f.WriteAt(b, c.slot*c.slotSize); err != nil {
		return fmt.Errorf("write %s: %w", cursorName(c.consumer), err)
	}
	return nil
}

// create replaces the file by one with large enough slots.
func (c *CursorFile) create(b []byte) error {
	size := int64(minSlotBytes)
	for size < int64(len(b)) {
		size *= 2
	}
	both := make([]byte, 2*size)
	copy(both, b)
	f, err := createSynced(c.fs, cursorName(c.consumer), both)
	if err != nil {
		return fmt.Errorf("create %s: %w", cursorName(c.consumer), err)
	}
	c.Close()
	c.f, c.slotSize, c.slot, c.dirty = f, size, 1, false
	return nil
}

// Sync makes the last write durable. After an error the cursor must be written again.
func (c *CursorFile) Sync() error {
	if c.f == nil || !c.dirty {
		return nil
	}
	if err := c.f.Sync(); err != nil {
		c.Close() // the next write creates a new file
		return fmt.Errorf("sync %s: %w", cursorName(c.consumer), err)
	}
	c.slot, c.dirty = 1-c.slot, false
	return nil
}

// Close closes the file without a sync.
func (c *CursorFile) Close() {
	if c.f != nil {
		c.f.Close()
	}
	c.f = nil
}

// latestSlot returns the content of the intact slot with the highest number.
func latestSlot(b []byte) (content []byte, number uint64, err error) {
	half := len(b) / 2
	var errs []error
	for _, slot := range [][]byte{b[:half], b[half:]} {
		c, _, err := parseBlock(magicCursor, slot)
		if err == nil && len(c) < numberBytes {
			err = ErrDamaged
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

// CursorNames returns the consumers that have a cursor file.
func CursorNames(fs FS) (consumers []string, err error) {
	names, err := fs.List()
	if err != nil {
		return nil, fmt.Errorf("list cursors: %w", err)
	}
	for _, name := range names {
		escaped, ok := strings.CutSuffix(name, cursorSuffix)
		if !ok {
			continue
		}
		if consumer, err := url.PathUnescape(escaped); err == nil && cursorName(consumer) == name {
			consumers = append(consumers, consumer)
		}
	}
	return consumers, nil
}

// RemoveCursor deletes the cursor file of a consumer.
func RemoveCursor(fs FS, consumer string) error {
	if err := fs.Remove(cursorName(consumer)); err != nil {
		return fmt.Errorf("remove cursor of consumer %q: %w", consumer, err)
	}
	return nil
}
