package offheap

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A Buffer has the bytes of a slice, except the freed ones.
func TestBufferIsASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var b Buffer
	defer b.Reset()
	var want []byte
	freed := 0
	for step := range 2_000 {
		switch p := make([]byte, random.IntN(2*chunkBytes)); random.IntN(4) {
		case 0, 1:
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			b.Append(p)
			want = append(want, p...)
		case 2:
			size := freed + random.IntN(len(want)-freed+1)
			b.Truncate(int64(size))
			want = want[:size]
		case 3:
			freed += random.IntN(min(len(p)+1, len(want)-freed+1))
			b.FreeBefore(int64(freed))
		}
		if step%500 == 499 {
			b.Reset()
			want, freed = nil, 0
		}
		if b.Size() != int64(len(want)) {
			t.Fatalf("step %d: %d bytes, want %d", step, b.Size(), len(want))
		}
		got := make([]byte, len(want)-freed)
		if n, err := b.ReadAt(got, int64(freed)); err != nil || n != len(got) || !bytes.Equal(got, want[freed:]) {
			t.Fatalf("step %d: read %d bytes, %v", step, n, err)
		}
		if n, _ := b.ReadAt(make([]byte, 10), int64(len(want))-int64(min(3, len(want)-freed))); n != min(3, len(want)-freed) {
			t.Fatalf("step %d: %d bytes before the end", step, n)
		}
	}
}

// Memory is in use for the bytes that are not freed, rounded up to chunks.
func TestFreedMemory(t *testing.T) {
	var b Buffer
	defer b.Reset()
	b.Append(make([]byte, 10*chunkBytes+1))
	b.FreeBefore(3*chunkBytes + chunkBytes/2)
	b.Truncate(8*chunkBytes + 1)
	used := 0
	for _, c := range b.chunks {
		used += len(c)
	}
	if want := 6 * chunkBytes; used != want {
		t.Errorf("%d bytes are in use, want %d", used, want)
	}
}
