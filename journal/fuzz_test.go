package journal

import (
	"slices"
	"testing"
)

// put makes a file of a memory storage.
func (m *memory) put(name string, content []byte) {
	f, _ := m.create(name)
	f.WriteAt(content, 0)
}

func (m *memory) get(name string) []byte {
	f := m.files[name]
	b := make([]byte, f.size)
	f.ReadAt(b, 0)
	return b
}

// fuzzOptions give segments of some twenty small records.
var fuzzOptions = Options{MaxBytes: 100_000, Consumers: consumers("a")}

// threeSegments returns a journal of three segments, of which nothing has been
// acknowledged, and the number of its records.
func threeSegments(t testing.TB) (*memory, []string, uint64) {
	s := newMemory()
	j := mustOpen(t, s, fuzzOptions)
	defer j.Close()
	v := uint64(0)
	for {
		j.mu.Lock()
		n := len(j.segments)
		j.mu.Unlock()
		if n == 3 {
			break
		}
		v++
		mustAppend(t, j, record(v, int(v)))
	}
	mustAppend(t, j, record(v+1, 5), positionOnly("other", 9), record(v+2, 5))
	names, _ := s.list()
	names = slices.DeleteFunc(names, func(name string) bool { _, ok := parseSegmentName(name); return !ok })
	return s, names, v + 2
}

// FuzzSegment puts any bytes anywhere into a segment. What is read after that
// are records as they were written, in order, and gap records.
func FuzzSegment(f *testing.F) {
	prototype, names, n := threeSegments(f)
	f.Add(uint8(0), uint32(0), []byte("HSL1"))
	f.Add(uint8(1), uint32(100), []byte(magicRecord))
	f.Add(uint8(2), uint32(1000), make([]byte, 3000))
	f.Add(uint8(1), uint32(0), prototype.get(names[0]))
	f.Add(uint8(2), uint32(10), prototype.get(names[1])[:500])
	// A sound head before frames that are not its payload, close to the end; and
	// whole frames where they do not belong.
	first, last := prototype.get(names[0]), prototype.get(names[2])
	_, head, _ := decodeSegmentHeader(first)
	f.Add(uint8(0x80+1), uint32(len(last)-250), first[head:head+frameHead])
	for _, end := range []int{len(last), len(last) - 100, len(last) - 250} {
		f.Add(uint8(2), uint32(end-1), first[head:head+frameHead])
		f.Add(uint8(0x80+2), uint32(end-1), first[head:head+frameHead])
		f.Add(uint8(2), uint32(end-1), first)
		f.Add(uint8(2), uint32(end-1), make([]byte, 700))
		f.Add(uint8(2), uint32(122), first[:end-1-122])
		f.Add(uint8(2), uint32(end-700), make([]byte, 500))
	}
	f.Fuzz(func(t *testing.T, segment uint8, at uint32, patch []byte) {
		s := prototype.clone()
		name := names[int(segment)%len(names)]
		b := s.get(name)
		// Inserted or written over, so that what follows is moved or not.
		i := int(at) % len(b)
		if segment&0x80 != 0 {
			b = slices.Concat(b[:i], patch, b[i:])
		} else {
			b = slices.Concat(b[:i], patch, b[min(len(b), i+len(patch)):])
		}
		s.put(name, b)
		checkDamaged(t, s, n)
	})
}

// FuzzTruncatedSegment cuts a segment anywhere.
func FuzzTruncatedSegment(f *testing.F) {
	prototype, names, n := threeSegments(f)
	f.Add(uint8(0), uint32(0))
	f.Add(uint8(2), uint32(1))
	f.Add(uint8(1), uint32(500))
	f.Fuzz(func(t *testing.T, segment uint8, size uint32) {
		s := prototype.clone()
		name := names[int(segment)%len(names)]
		b := s.get(name)
		s.put(name, b[:int(size)%len(b)])
		checkDamaged(t, s, n)
	})
}

// checkDamaged opens a journal that held the records up to n, and reads it.
func checkDamaged(t *testing.T, s *memory, n uint64) {
	j := mustOpen(t, s, fuzzOptions)
	defer j.Close()
	entries := readAll(t, mustConsumer(t, j, "a"))
	tail := j.Tail("").Version
	last, told := uint64(0), false
	for _, e := range entries {
		if e.Record.Gap {
			told = true
			continue
		}
		v := version(e)
		if v <= last || v > n {
			t.Fatalf("record %d after %d", v, last)
		}
		if v != last+1 && !told {
			t.Fatalf("record %d after %d, and no gap record between them", v, last)
		}
		want, got := record(v, int(v)), e.Record
		if v > n-2 {
			want = record(v, 5)
		}
		if got.Event.Message != want.Event.Message {
			t.Fatalf("record %d has changed", v)
		}
		last, told = v, false
	}
	if last < tail && !told {
		t.Fatalf("the last record is %d, the tail %d, and no gap record in between", last, tail)
	}
	mustAppend(t, j, record(n+1, 1))
	entries = readAll(t, mustConsumer(t, j, "a"))
	if version(entries[len(entries)-1]) != n+1 {
		t.Fatalf("a record appended afterwards does not come: %s", story(entries))
	}
}

// FuzzCursor puts any bytes in the place of a cursor.
func FuzzCursor(f *testing.F) {
	prototype, _, n := threeSegments(f)
	f.Add([]byte{}, true)
	f.Add(prototype.get("a.cursor"), false)
	f.Add([]byte(`{"name":"a","offset":7,"positions":{"":{"epoch":"-/0","version":5}},"lost":{"until":9,"missed":{"":2}}}`), true)
	f.Add([]byte(`{"name":"a","offset":18446744073709551615,"lost":{"until":18446744073709551615}}`), true)
	f.Fuzz(func(t *testing.T, content []byte, sealed bool) {
		s := prototype.clone()
		if sealed {
			content = seal(magicCursor, slices.Concat(make([]byte, numberBytes), content))
			content = slices.Concat(content, make([]byte, max(0, minSlotBytes-len(content))), make([]byte, max(minSlotBytes, len(content))))
		}
		s.put("a.cursor", content)
		j := mustOpen(t, s, fuzzOptions)
		defer j.Close()
		last := uint64(0)
		for _, e := range readAll(t, mustConsumer(t, j, "a")) {
			if v := version(e); !e.Record.Gap {
				if v <= last || v > n {
					t.Fatalf("record %d after %d", v, last)
				}
				last = v
			}
		}
		mustAppend(t, j, record(n+1, 1))
		entries := readAll(t, mustConsumer(t, j, "a"))
		if len(entries) == 0 || version(entries[len(entries)-1]) != n+1 {
			t.Fatalf("a record appended afterwards does not come: %s", story(entries))
		}
	})
}
