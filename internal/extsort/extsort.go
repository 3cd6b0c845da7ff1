// Package extsort is an external merge sort of states of Events. It needs a few MB of
// memory for any number of states.
package extsort

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/golang/snappy"

	"github.com/hindsight-events/hindsight/internal/offheap"
)

// Sizes of a sorter. A run is sorted in memory. The merge holds one block of each run in
// memory, so blocks are small: a list of a million Events makes some 120 runs.
const (
	runBytes   = 4 << 20
	blockBytes = 8 << 10
	writeBytes = 64 << 10 // of one write to the file
)

// Sorter sorts states by version: it stores sorted, compressed runs and merges them. It
// returns a version that was added several times once, unless KeepEqual is set. A Sorter is
// not safe for concurrent use. Reset or Drain free its memory, which is outside Go's heap.
//
// Runs are stored in an unlinked file in Dir, or in memory if Dir is empty or the file
// failed.
type Sorter struct {
	Dir string
	// KeepEqual returns all states of equal versions, in the order of Add.
	KeepEqual bool

	file *os.File // nil before the first run

	run     []runEntry
	runData []byte // the states of run
	used    int    // bytes of runData
	packed  []byte // compressed blocks
	block   []byte // before it is compressed

	runs             []storedRun
	inFile, inMemory int64 // bytes of all runs
	fileErr          error // of the file in Dir
}

// runEntry is a state of the current run.
type runEntry struct {
	version    uint64
	start, end uint32 // in runData
}

// storedRun is a run in the file or in memory.
type storedRun struct {
	in     io.ReaderAt
	start  int64           // in in
	size   int64           // in bytes
	memory *offheap.Buffer // that is in; nil: it is the file
}

// Add adds a copy of a state.
func (s *Sorter) Add(version uint64, state []byte) {
	if s.used+len(state) > len(s.runData) {
		if len(s.run) > 0 {
			s.flushRun()
		}
		if len(state) > len(s.runData) {
			s.freeRunData()
			s.runData = offheap.Alloc(max(runBytes, len(state)))
		}
	}
	start := s.used
	s.used += copy(s.runData[start:], state)
	s.run = append(s.run, runEntry{version: version, start: uint32(start), end: uint32(s.used)})
}

func (s *Sorter) freeRunData() {
	if s.runData != nil {
		offheap.Free(s.runData)
	}
	s.runData = nil
}

// flushRun sorts the current run and stores it in the file or in memory.
func (s *Sorter) flushRun() {
	s.sortRun()
	if s.Dir != "" && s.fileErr == nil {
		var size int64
		if size, s.fileErr = s.writeRun(); s.fileErr == nil {
			s.runs = append(s.runs, storedRun{in: s.file, start: s.inFile, size: size})
			s.inFile += size
		}
	}
	if s.Dir == "" || s.fileErr != nil {
		memory := new(offheap.Buffer)
		_ = s.packRun(func(packed []byte) error { memory.Append(packed); return nil })
		s.runs = append(s.runs, storedRun{in: memory, size: memory.Size(), memory: memory})
		s.inMemory += memory.Size()
	}
	s.run, s.used = s.run[:0], 0
}

func (s *Sorter) sortRun() {
	slices.SortStableFunc(s.run, func(a, b runEntry) int { return cmp.Compare(a.version, b.version) })
}

// writeRun appends the current run to the file.
func (s *Sorter) writeRun() (size int64, err error) {
	if s.file == nil {
		if s.file, err = createUnlinked(s.Dir); err != nil {
			return 0, err
		}
	}
	err = s.packRun(func(packed []byte) error {
		n, err := s.file.WriteAt(packed, s.inFile+size)
		size += int64(n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("write run: %w", err)
	}
	return size, nil
}

// createUnlinked creates a file without a name, which is deleted when the process ends.
func createUnlinked(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "sort-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("create file of runs: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("unlink file of runs: %w", err)
	}
	return file, nil
}

// packRun passes the current run to write in the stored form: snappy blocks of states, each
// with version, length and bytes. The length of each block precedes it, and a length of 0
// follows the last.
func (s *Sorter) packRun(write func(packed []byte) error) error {
	s.block, s.packed = s.block[:0], s.packed[:0]
	for _, e := range s.run {
		state := s.runData[e.start:e.end]
		if len(s.block) > 0 && len(s.block)+2*binary.MaxVarintLen64+len(state) > blockBytes {
			s.packed = appendBlock(s.packed, s.block)
			s.block = s.block[:0]
			if len(s.packed) >= writeBytes {
				if err := write(s.packed); err != nil {
					return err
				}
				s.packed = s.packed[:0]
			}
		}
		s.block = binary.AppendUvarint(s.block, e.version)
		s.block = binary.AppendUvarint(s.block, uint64(len(state)))
		s.block = append(s.block, state...)
	}
	s.packed = appendBlock(s.packed, s.block)
	return write(binary.BigEndian.AppendUint32(s.packed, 0))
}

// lengthBytes is the size of the length of a block.
const lengthBytes = 4

// appendBlock appends a compressed block to data. Uncompressed blocks take about as much
// CPU, but 2.5 times the disk and page cache, which counts as memory of the container.
func appendBlock(data, block []byte) []byte {
	start := len(data) + lengthBytes
	data = slices.Grow(data, lengthBytes+snappy.MaxEncodedLen(len(block)))
	packed := snappy.Encode(data[start:cap(data)], block)
	data = binary.BigEndian.AppendUint32(data, uint32(len(packed)))
	return data[:start+len(packed)]
}

// Drain calls visit with each state, the lowest version first, and empties the Sorter. A
// state is valid until visit returns. Drain returns an error of visit unchanged.
func (s *Sorter) Drain(visit func(version uint64, state []byte) error) error {
	defer s.Reset()
	first, last := true, uint64(0)
	visitNew := func(version uint64, state []byte) error {
		if !first && version == last && !s.KeepEqual {
			return nil
		}
		first, last = false, version
		return visit(version, state)
	}
	if len(s.runs) == 0 {
		s.sortRun()
		for _, e := range s.run {
			if err := visitNew(e.version, s.runData[e.start:e.end]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(s.run) > 0 {
		s.flushRun()
	}
	s.freeRunData()
	s.run, s.packed, s.block = nil, nil, nil

	var packed []byte // shared, because each block is decompressed immediately
	heap := make([]*runReader, 0, len(s.runs))
	for i, run := range s.runs {
		r := &runReader{storedRun: run, run: i, packed: &packed}
		switch err := r.next(); {
		case errors.Is(err, io.EOF):
		case err != nil:
			return err
		default:
			heap = append(heap, r)
		}
	}
	slices.SortFunc(heap, compare)

	for len(heap) > 0 {
		r := heap[0]
		if err := visitNew(r.version, r.state); err != nil {
			return err
		}
		switch err := r.next(); {
		case errors.Is(err, io.EOF):
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		case err != nil:
			return err
		}
		siftDown(heap)
	}
	return nil
}

// compare orders by version, then by the order in which states were added.
func compare(a, b *runReader) int {
	return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(a.run, b.run))
}

// siftDown restores the heap after a change of its first element.
func siftDown(heap []*runReader) {
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(heap); child++ {
			if compare(heap[child], heap[least]) < 0 {
				least = child
			}
		}
		if least == i {
			return
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}

// Size returns the size of all runs in bytes, and the part of it that is in memory.
func (s *Sorter) Size() (total, inMemory int64) { return s.inFile + s.inMemory, s.inMemory }

// FileErr returns the error of the file in Dir, if any. Runs are then stored in memory.
func (s *Sorter) FileErr() error { return s.fileErr }

// Reset empties the sorter.
func (s *Sorter) Reset() {
	if s.file != nil {
		_ = s.file.Close() // unlinked
	}
	s.freeRunData()
	for _, run := range s.runs {
		if run.memory != nil {
			run.memory.Reset()
		}
	}
	*s = Sorter{Dir: s.Dir, KeepEqual: s.KeepEqual, fileErr: s.fileErr}
}

// runReader reads a run. next sets version and state.
type runReader struct {
	storedRun
	run     int     // index of the run
	at      int64   // offset of the next block in the run
	length  int     // of that block, compressed
	packed  *[]byte // scratch
	block   []byte  // decompressed
	rest    []byte  // of block, after state
	version uint64
	state   []byte
}

var errDamaged = errors.New("read run: it is damaged")

// next advances to the next state, or returns io.EOF.
func (r *runReader) next() error {
	if len(r.rest) == 0 {
		if err := r.nextBlock(); err != nil {
			return err
		}
	}
	version, n := binary.Uvarint(r.rest)
	if n <= 0 {
		return errDamaged
	}
	size, m := binary.Uvarint(r.rest[n:])
	if m <= 0 || size > uint64(len(r.rest)-n-m) {
		return errDamaged
	}
	start := n + m
	r.version, r.state, r.rest = version, r.rest[start:start+int(size)], r.rest[start+int(size):]
	return nil
}

// nextBlock reads a block and the length of the next one. Before the first block it reads
// the length of that.
func (r *runReader) nextBlock() (err error) {
	if r.at == 0 {
		if _, err := r.read(0); err != nil {
			return err
		}
	}
	if r.length == 0 {
		if r.at != r.size {
			return errDamaged
		}
		return io.EOF
	}
	packed, err := r.read(r.length)
	if err != nil {
		return err
	}
	if r.block == nil {
		r.block = make([]byte, 0, blockBytes)
	}
	if r.block, err = snappy.Decode(r.block[:cap(r.block)], packed); err != nil {
		return fmt.Errorf("read run: %w", err)
	}
	r.rest = r.block
	return nil
}

// read reads size bytes and the length after them. The bytes are valid until the next read
// of any run.
func (r *runReader) read(size int) ([]byte, error) {
	if int64(size+lengthBytes) > r.size-r.at {
		return nil, errDamaged
	}
	*r.packed = slices.Grow((*r.packed)[:0], size+lengthBytes)[:size+lengthBytes]
	b := *r.packed
	if _, err := r.in.ReadAt(b, r.start+r.at); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read run: %w", err)
	}
	r.at += int64(len(b))
	if r.memory != nil {
		r.memory.FreeBefore(r.at)
	}
	r.length = int(binary.BigEndian.Uint32(b[size:]))
	return b[:size], nil
}
