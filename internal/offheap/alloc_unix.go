//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package offheap

import (
	"sync/atomic"
	"syscall"
)

var inUse atomic.Int64

// InUse returns the number of bytes that are allocated outside Go's heap.
func InUse() int64 { return inUse.Load() }

// Alloc returns n zero bytes, of Go's heap if the system has none outside it. The system provides
// a page of them when it is first written.
func Alloc(n int) []byte {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n)
	}
	inUse.Add(int64(n))
	return b
}

// Free frees what Alloc has returned, as a whole. It must not be used any more.
func Free(b []byte) {
	if syscall.Munmap(b) == nil { // it fails for memory of Go's heap
		inUse.Add(-int64(len(b)))
	}
}
