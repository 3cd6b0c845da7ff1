// Package extsort is an external merge sort of states of Events. It needs a few MB of
// memory for any number of states.
package extsort

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/golang/snappy"
)

// Sizes of a sorter. A run is sorted in memory. The merge holds one block of each run in
// memory, so blocks are small: a list of a million Events makes some 250 runs.
const (
	runBytes   = 2 << 20
	blockBytes = 8 << 10
)

// Sorter sorts states by version: it stores sorted, compressed runs and merges them. It
// returns a version that was added several times once, unless KeepEqual is set. A Sorter is
// not safe for concurrent use.
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
	scratch []byte // for a compressed run
	block   []byte // for a block of it

	runs             []*io.SectionReader
	inFile, inMemory int64 // bytes of all runs
	fileErr          error // of the file in Dir
}

// runEntry is a state of the current run.
type runEntry struct {
	version    uint64
	start, end int // in runData
}

// Add adds a copy of a state.
func (s *Sorter) Add(version uint64, state []byte) {
	start := len(s.runData)
	s.runData = append(s.runData, state...)
	s.run = append(s.run, runEntry{version: version, start: start, end: len(s.runData)})
	if len(s.runData) >= runBytes {
		s.flushRun()
	}
}

// flushRun sorts the current run and stores it in the file or in memory.
func (s *Sorter) flushRun() {
	s.scratch = s.sortedRun(s.scratch[:0])
	size := int64(len(s.scratch))
	if s.Dir != "" && s.fileErr == nil {
		s.fileErr = s.writeRun(s.scratch)
	}
	if s.Dir != "" && s.fileErr == nil {
		s.runs = append(s.runs, io.NewSectionReader(s.file, s.inFile, size))
		s.inFile += size
	} else {
		s.runs = append(s.runs, io.NewSectionReader(bytes.NewReader(bytes.Clone(s.scratch)), 0, size))
		s.inMemory += size
	}
	s.run, s.runData = s.run[:0], s.runData[:0]
}

// writeRun appends a run to the file.
func (s *Sorter) writeRun(run []byte) error {
	if s.file == nil {
		file, err := createUnlinked(s.Dir)
		if err != nil {
			return err
		}
		s.file = file
	}
	if _, err := s.file.WriteAt(run, s.inFile); err != nil {
		return fmt.Errorf("write run: %w", err)
	}
	return nil
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

// sortedRun appends the current run to data in the stored form: snappy blocks of
// states, each with version, length and bytes. The length of each block precedes
// it, and a length of 0 follows the last.
func (s *Sorter) sortedRun(data []byte) []byte {
	slices.SortStableFunc(s.run, func(a, b runEntry) int { return cmp.Compare(a.version, b.version) })
	s.block = s.block[:0]
	for _, e := range s.run {
		state := s.runData[e.start:e.end]
		if len(s.block) > 0 && len(s.block)+2*binary.MaxVarintLen64+len(state) > blockBytes {
			data = appendBlock(data, s.block)
			s.block = s.block[:0]
		}
		s.block = binary.AppendUvarint(s.block, e.version)
		s.block = binary.AppendUvarint(s.block, uint64(len(state)))
		s.block = append(s.block, state...)
	}
	data = appendBlock(data, s.block)
	return binary.BigEndian.AppendUint32(data, 0)
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
	runs := s.runs
	switch {
	case len(s.run) == 0:
	case len(runs) == 0:
		// A single run is merged from memory.
		data := s.sortedRun(nil)
		runs = append(runs, io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))))
	default:
		s.flushRun()
		runs = s.runs
	}
	s.run, s.runData, s.scratch, s.block = nil, nil, nil, nil

	var packed []byte // shared, because each block is decompressed immediately
	heap := make([]*runReader, 0, len(runs))
	for i, run := range runs {
		r := &runReader{in: run, run: i, packed: &packed}
		switch err := r.next(); {
		case errors.Is(err, io.EOF):
		case err != nil:
			return err
		default:
			heap = append(heap, r)
		}
	}
	slices.SortFunc(heap, compare)

	first, last := true, uint64(0)
	for len(heap) > 0 {
		r := heap[0]
		if first || r.version != last || s.KeepEqual {
			first, last = false, r.version
			if err := visit(r.version, r.state); err != nil {
				return err
			}
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
	*s = Sorter{Dir: s.Dir, KeepEqual: s.KeepEqual, fileErr: s.fileErr}
}

// runReader reads a run. next sets version and state.
type runReader struct {
	in      *io.SectionReader
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
		if r.at != r.in.Size() {
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
	if int64(size+lengthBytes) > r.in.Size()-r.at {
		return nil, errDamaged
	}
	*r.packed = slices.Grow((*r.packed)[:0], size+lengthBytes)[:size+lengthBytes]
	b := *r.packed
	if _, err := r.in.ReadAt(b, r.at); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read run: %w", err)
	}
	r.at += int64(len(b))
	r.length = int(binary.BigEndian.Uint32(b[size:]))
	return b[:size], nil
}
