package storage

import (
	"errors"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/event"
)

func equal(a, b Cursor) bool {
	return a.Offset == b.Offset && maps.Equal(a.Positions, b.Positions) && reflect.DeepEqual(a.Dropped, b.Dropped)
}

func TestCursorFile(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	const name = "a/sink with ünusual name"
	c, _, err := OpenCursor(m, name)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open a missing cursor: %v", err)
	}
	want := Cursor{Offset: 1, Positions: map[string]event.Position{}}
	for i := range 50 {
		want.Offset++
		if want.Dropped = nil; i%2 == 0 {
			want.Dropped = &DroppedRange{
				From: 100, Until: 100, Missed: map[string]int{"loki": 5},
				Positions: map[string]event.Position{"loki": positionAt(99)},
			}
		}
		want.Positions[strings.Repeat("source", i)] = positionAt(want.Offset) // outgrows its slot
		must(t, c.Write(want))
		if i%3 == 0 {
			must(t, c.Sync())
		}
		if _, got, err := OpenCursor(m, name); err != nil || !equal(got, want) {
			t.Fatalf("read cursor %+v, %v, want %+v", got, err, want)
		}
	}
	if names, err := CursorNames(m); err != nil || !slices.Equal(names, []string{name}) {
		t.Errorf("cursors %q, %v", names, err)
	}
	must(t, RemoveCursor(m, name))
	if names, err := CursorNames(m); err != nil || len(names) > 0 {
		t.Errorf("cursors %q, %v after the removal", names, err)
	}
}

// The cursor that was synced last survives any damage to the slot that is written.
func TestTornCursorWrite(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	c, _, _ := OpenCursor(m, "a")
	must(t, c.Write(Cursor{Offset: 1}))
	must(t, c.Sync())
	before := content(t, m, "a.cursor")
	must(t, c.Write(Cursor{Offset: 2}))
	after := content(t, m, "a.cursor")
	for torn := 0; torn < len(after); torn += 16 {
		put(t, m, "a.cursor", slices.Concat(after[:torn], before[torn:]))
		if _, got, err := OpenCursor(m, "a"); err != nil || got.Offset != 1 && got.Offset != 2 {
			t.Fatalf("torn after %d bytes: %+v, %v", torn, got, err)
		}
	}
}

func FuzzCursorFile(f *testing.F) {
	m := NewMemory()
	c, _, _ := OpenCursor(m, "a")
	must(f, c.Write(Cursor{Offset: 7, Positions: map[string]event.Position{"": positionAt(5)}, Dropped: &DroppedRange{Until: 9}}))
	f.Add(content(f, m, "a.cursor"), false)
	f.Add([]byte{}, true)
	f.Add([]byte(`{"name":"a","offset":7,"positions":{"":{"epoch":"-/0","version":5}},"lost":{"until":9,"missed":{"":2}}}`), true)
	f.Add([]byte(`{"name":"b","offset":7}`), true)
	f.Add([]byte(`{"name":"a"}`), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		m := NewMemory()
		if sealed {
			b = appendBlock(nil, magicCursor, slices.Concat(make([]byte, numberBytes), b))
			b = slices.Concat(b, make([]byte, len(b)))
		}
		put(t, m, "a.cursor", b)
		c, cursor, err := OpenCursor(m, "a")
		if err == nil && cursor.Offset == 0 {
			t.Errorf("cursor without an offset")
		}
		want := Cursor{Offset: 3}
		must(t, c.Write(want))
		if _, got, err := OpenCursor(m, "a"); err != nil || !equal(got, want) {
			t.Errorf("cursor written afterwards is %+v, %v", got, err)
		}
	})
}
