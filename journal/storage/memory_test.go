package storage

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"
)

// A file in memory has the bytes of a slice, whatever is compressed of it.
func TestMemoryFileIsASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	f, err := NewMemory().Create("file")
	must(t, err)
	defer f.Close()
	var want []byte
	for step := range 2_000 {
		switch random.IntN(8) {
		case 0:
			size := random.IntN(len(want) + 1)
			if random.IntN(4) > 0 {
				size = len(want) - min(len(want), random.IntN(pageBytes))
			}
			must(t, f.Truncate(int64(size)))
			want = want[:size]
		default:
			p := bytes.Repeat([]byte{byte(random.Uint32()), byte(step)}, random.IntN(2*pageBytes))
			at := len(want)
			switch random.IntN(6) {
			case 0:
				at = random.IntN(at + 1)
			case 1:
				at += random.IntN(100)
			}
			if n, err := f.WriteAt(p, int64(at)); n != len(p) || err != nil {
				t.Fatalf("step %d: wrote %d of %d bytes: %v", step, n, len(p), err)
			}
			want = append(want, make([]byte, max(0, at+len(p)-len(want)))...)
			copy(want[at:], p)
		}
		if size, _ := f.Size(); size != int64(len(want)) {
			t.Fatalf("step %d: %d bytes, want %d", step, size, len(want))
		}
		from := random.IntN(len(want) + 1)
		got := make([]byte, random.IntN(3*pageBytes))
		n, err := f.ReadAt(got, int64(from))
		if short := n < len(got); short != errors.Is(err, io.EOF) || !short && err != nil || !bytes.Equal(got[:n], want[from:min(from+len(got), len(want))]) {
			t.Fatalf("step %d: read %d bytes of %d at %d of %d: %v", step, n, len(got), from, len(want), err)
		}
	}
}

// A removed file is readable through its handles, and its memory is free after the last of them.
func TestMemoryOfRemovedFiles(t *testing.T) {
	m := NewMemory()
	content := bytes.Repeat([]byte("some bytes. "), 10_000)
	remove := map[string]func(){
		"removed":  func() { must(t, m.Remove("file")) },
		"replaced": func() { put(t, m, "file", nil) },
		"renamed":  func() { put(t, m, "other", nil); must(t, m.Rename("other", "file")) },
	}
	for name, remove := range remove {
		put(t, m, "file", content)
		file := m.files["file"]
		a, err := m.Open("file")
		must(t, err)
		b, err := m.Open("file")
		must(t, err)
		remove()
		must(t, a.Close())
		must(t, a.Close())
		got := make([]byte, len(content))
		if _, err := b.ReadAt(got, 0); err != nil || !slices.Equal(got, content) {
			t.Errorf("%s: cannot read through an open handle: %v", name, err)
		}
		must(t, b.Close())
		if size := file.packed.Size(); size != 0 || file.last != nil {
			t.Errorf("%s: %d bytes are in memory after the last handle was closed", name, size)
		}
		if _, err := b.ReadAt(got, 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: read through a closed handle: %v", name, err)
		}
	}
}
