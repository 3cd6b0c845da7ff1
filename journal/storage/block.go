package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

const (
	blockHead = 12

	// maxBlock bounds the length that is trusted.
	maxBlock = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errShort = errors.New("more bytes are needed")

	// ErrDamaged is the error of a block whose content has changed since it was written.
	ErrDamaged = errors.New("checksum does not match")
)

// appendBlock appends content with its magic, length and checksum.
func appendBlock(b []byte, magic string, content []byte) []byte {
	start := len(b)
	b = slices.Grow(b, blockHead+len(content))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, content...)
	block := b[start:]
	binary.LittleEndian.PutUint32(block[8:], blockSum(block))
	return b
}

func blockSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[blockHead:])
}

// parseBlock returns the content and the whole length of the block at the beginning of b. If b
// is too short for it, the error is errShort and n the length needed.
func parseBlock(magic string, b []byte) (content []byte, n int, err error) {
	if len(b) < blockHead {
		return nil, blockHead, errShort
	}
	if string(b[:4]) != magic {
		return nil, 0, fmt.Errorf("starts with %q, want %q", b[:4], magic)
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if length > maxBlock {
		return nil, 0, fmt.Errorf("length %d is above %d", length, maxBlock)
	}
	n = blockHead + int(length)
	if len(b) < n {
		return nil, n, errShort
	}
	if binary.LittleEndian.Uint32(b[8:]) != blockSum(b[:n]) {
		return nil, 0, ErrDamaged
	}
	return b[blockHead:n], n, nil
}
