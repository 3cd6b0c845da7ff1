// Package offheap keeps bytes outside Go's heap. They take the memory that is in use and no more:
// it returns to the operating system when it is freed, and the garbage collector, which lets its
// heap grow by half of what is live, does not count it. GOMEMLIMIT does not count it either.
package offheap

import "io"

// chunkBytes is allocated at once, a multiple of the size of a page.
const chunkBytes = 32 << 10

// Buffer is a sequence of bytes that is appended to, and freed from its beginning. The zero Buffer
// is empty. Only reads may be concurrent. A Buffer that is dropped without Reset leaks its memory.
type Buffer struct {
	chunks [][]byte // nil: freed
	size   int64
	freed  int // number of freed chunks
}

// Size returns the number of bytes, including those freed by FreeBefore.
func (b *Buffer) Size() int64 { return b.size }

// Append adds a copy of p.
func (b *Buffer) Append(p []byte) {
	for len(p) > 0 {
		in := int(b.size % chunkBytes)
		if in == 0 {
			b.chunks = append(b.chunks, Alloc(chunkBytes))
		}
		n := copy(b.chunks[len(b.chunks)-1][in:], p)
		b.size += int64(n)
		p = p[n:]
	}
}

// ReadAt implements io.ReaderAt. The bytes must not be freed.
func (b *Buffer) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && at < b.size {
		in := at % chunkBytes
		k := copy(p[n:], b.chunks[at/chunkBytes][in:min(chunkBytes, in+b.size-at)])
		n += k
		at += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// FreeBefore frees memory of bytes before an offset, which must not be read any more.
func (b *Buffer) FreeBefore(offset int64) {
	for ; b.freed < int(min(offset, b.size)/chunkBytes); b.freed++ {
		Free(b.chunks[b.freed])
		b.chunks[b.freed] = nil
	}
}

// Truncate removes the bytes from an offset on. None before it may be freed.
func (b *Buffer) Truncate(size int64) {
	keep := int((size + chunkBytes - 1) / chunkBytes)
	for i := keep; i < len(b.chunks); i++ {
		Free(b.chunks[i])
	}
	b.chunks, b.size = b.chunks[:keep], size
}

// Reset frees everything and empties the Buffer.
func (b *Buffer) Reset() {
	b.FreeBefore(b.size)
	if b.freed < len(b.chunks) {
		Free(b.chunks[b.freed]) // the last one is not full
	}
	*b = Buffer{}
}
