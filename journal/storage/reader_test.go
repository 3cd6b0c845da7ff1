package storage

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hindsight-events/hindsight/test/nightly"
)

// threeSegments returns the files of a log of three segments with records of offset and version 1
// to n, the names of the segments, and n.
func threeSegments(t testing.TB) (m *Memory, names []string, n uint64) {
	m = NewMemory()
	r := mustRecover(t, m)
	for v := uint64(1); v <= 60; v++ {
		if v == 21 || v == 41 {
			r.startSegment(t)
		}
		r.write(t, record(v, int(v)))
	}
	r.write(t, record(61, 61), record(62, 62))
	for _, s := range r.Log.Segments {
		names = append(names, s.Name())
	}
	return m, names, 62
}

// checkDamaged reads a damaged log of the records up to n. The records that are found are intact
// and at their offsets, and the log can be appended to.
func checkDamaged(t *testing.T, m *Memory, n uint64) []found {
	t.Helper()
	r := mustRecover(t, m)
	check := func() (all []found) {
		t.Helper()
		all = readAll(t, m, r.Log)
		last := uint64(0)
		for _, f := range all {
			if f.offset <= last { // readers skip it
				continue
			}
			if f.offset != f.version || f.version <= n && f.message != int(f.version) {
				t.Fatalf("record changed: %+v", f)
			}
			last = f.offset
		}
		if last >= r.Next {
			t.Fatalf("record %d is in the log, but the next offset is %d", last, r.Next)
		}
		return all
	}
	all := check()
	if r.Next > n+1 {
		t.Fatalf("next offset is %d after %d records", r.Next, n)
	}
	next := r.Next
	r.write(t, record(next, int(next)))
	again := check()
	if last := again[len(again)-1]; last.offset != next {
		t.Fatalf("appended record %d is not found; the last one is %d", next, last.offset)
	}
	return all
}

// A flipped bit damages one record at most.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	m, names, n := threeSegments(t)
	step := nightly.Size(371, 37)
	for _, name := range names {
		intact := content(t, m, name)
		for bit := 0; bit < len(intact)*8; bit += step {
			damaged := clone(t, m)
			b := slices.Clone(intact)
			b[bit/8] ^= 1 << (bit % 8)
			put(t, damaged, name, b)
			// A crash could have damaged the last group, of two records, in the same way.
			if lost := int(n) - len(checkDamaged(t, damaged, n)); lost > 2 || lost == 2 && name != names[2] {
				t.Fatalf("bit %d of %s costs %d records", bit, name, lost)
			}
		}
	}
}

func FuzzSegment(f *testing.F) {
	intact, names, n := threeSegments(f)
	f.Add(uint8(0), uint32(0), []byte(magicSegment))
	f.Add(uint8(1), uint32(100), []byte(magicRecord))
	f.Add(uint8(2), uint32(1000), make([]byte, 3000))
	f.Add(uint8(1), uint32(0), content(f, intact, names[0]))
	f.Add(uint8(2), uint32(10), content(f, intact, names[1])[:500])
	// An intact head before frames that are not its payload, close to the end, and whole frames
	// of another segment.
	first, last := content(f, intact, names[0]), content(f, intact, names[2])
	_, head, _ := decodeHeader(first)
	f.Add(uint8(0x80+1), uint32(len(last)-250), first[head:head+frameHead])
	for _, end := range []int{len(last), len(last) - 100, len(last) - 250} {
		f.Add(uint8(2), uint32(end-1), first[head:head+frameHead])
		f.Add(uint8(0x80+2), uint32(end-1), first[head:head+frameHead])
		f.Add(uint8(2), uint32(end-1), first)
		f.Add(uint8(2), uint32(end-1), make([]byte, 700))
		f.Add(uint8(2), uint32(122), first[:min(len(first), end-1-122)])
		f.Add(uint8(2), uint32(end-700), make([]byte, 500))
	}
	f.Fuzz(func(t *testing.T, segment uint8, at uint32, patch []byte) {
		m := clone(t, intact)
		name := names[int(segment)%len(names)]
		b := content(t, m, name)
		i := int(at) % len(b)
		after := min(len(b), i+len(patch))
		if segment&0x80 != 0 { // inserted, not written over
			after = i
		}
		put(t, m, name, slices.Concat(b[:i], patch, b[after:]))
		checkDamaged(t, m, n)
	})
}

func FuzzTruncatedSegment(f *testing.F) {
	intact, names, n := threeSegments(f)
	f.Add(uint8(0), uint32(0))
	f.Add(uint8(2), uint32(1))
	f.Add(uint8(1), uint32(500))
	f.Fuzz(func(t *testing.T, segment uint8, size uint32) {
		m := clone(t, intact)
		name := names[int(segment)%len(names)]
		b := content(t, m, name)
		put(t, m, name, b[:int(size)%len(b)])
		checkDamaged(t, m, n)
	})
}

// A frame that a failed sync left in its segment was written to the next segment again.
func TestReaderSkipsLeftoverFrames(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	r := mustRecover(t, m)
	r.write(t, records(1, 3, 10)...)
	next, size := r.Next, r.Log.Size
	r.write(t, records(4, 5, 10)...)
	r.Next = next
	r.startSegment(t)
	r.write(t, records(4, 6, 10)...)
	if r.Log.Segments[0].Size == size {
		t.Fatal("nothing is left over")
	}
	var got []uint64
	for _, f := range readAll(t, m, r.Log) {
		got = append(got, f.version)
	}
	if want := "[1 2 3 4 5 6]"; fmt.Sprint(got) != want {
		t.Errorf("read %v, want %s", got, want)
	}
}
