package parked

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A file is a header and a frame for each record:
//
//	header: magic, head (uint64), CRC of head, length of name, name, CRC of name
//	frame:  length of record, CRC of the rest, Unix time of parking (uint32), record
//
// Numbers are little-endian and have 32 bits unless another size is given. Head is the
// offset of the oldest record that was not dropped; it is overwritten in place.
const (
	suffix           = ".parked"
	tmpSuffix        = ".tmp"
	unreadableSuffix = ".unreadable" // of a file that could not be read

	magic       = "HSPARK1\n"
	headAt      = len(magic)
	nameAt      = headAt + 8 + 4
	frameHeader = 4 + 4 + 4

	maxName   = 1 << 20
	maxRecord = 17 << 20 // as in the journal

	// compactFrom is the number of bytes of dropped records from which a file is
	// rewritten without them, if they are more than half of it. There may be thousands of
	// files.
	compactFrom = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged means that records have changed since they were written, or that their file
// was removed.
var ErrDamaged = errors.New("damaged")

// fileName returns the file name of a stream, which has a fixed length.
func fileName(stream string) string {
	sum := sha256.Sum256([]byte(stream))
	return hex.EncodeToString(sum[:16]) + suffix
}

func appendHeader(dst []byte, name string) []byte {
	dst = append(dst, magic...)
	dst = append(dst, make([]byte, 8+4)...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(name)))
	dst = append(dst, name...)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum([]byte(name), castagnoli))
	putHead(dst[headAt:], int64(len(dst)))
	return dst
}

func putHead(dst []byte, head int64) {
	binary.LittleEndian.PutUint64(dst, uint64(head))
	binary.LittleEndian.PutUint32(dst[8:], crc32.Checksum(dst[:8], castagnoli))
}

// readHeader returns a queue with the name and the head of a file.
func readHeader(f file, size int64) (*Queue, error) {
	fixed := make([]byte, nameAt+4)
	if size < int64(len(fixed)) {
		return nil, ErrDamaged
	}
	if _, err := f.ReadAt(fixed, 0); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(fixed[nameAt:]))
	if string(fixed[:headAt]) != magic || n > maxName || size < int64(len(fixed))+n+4 {
		return nil, ErrDamaged
	}
	rest := make([]byte, n+4)
	if _, err := f.ReadAt(rest, int64(len(fixed))); err != nil {
		return nil, err
	}
	if crc32.Checksum(rest[:n], castagnoli) != binary.LittleEndian.Uint32(rest[n:]) {
		return nil, ErrDamaged
	}
	q := &Queue{name: string(rest[:n]), created: true, begin: int64(len(fixed)) + n + 4}
	q.head = int64(binary.LittleEndian.Uint64(fixed[headAt:]))
	if crc32.Checksum(fixed[headAt:headAt+8], castagnoli) != binary.LittleEndian.Uint32(fixed[headAt+8:]) || q.head < q.begin || q.head > size {
		q.head = q.begin // torn by a crash; dropped records are returned again
	}
	return q, nil
}

func appendFrame(dst, record []byte, now time.Time) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(record)))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(now.Unix()))
	dst = append(dst, record...)
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(dst[start+8:], castagnoli))
	return dst
}

func readFrame(f file, at, tail int64) (record []byte, parkedAt time.Time, err error) {
	var header [frameHeader]byte
	if tail-at < frameHeader {
		return nil, time.Time{}, ErrDamaged
	}
	if err := readFull(f, header[:], at); err != nil {
		return nil, time.Time{}, err
	}
	n := int64(binary.LittleEndian.Uint32(header[:]))
	if n > maxRecord || n > tail-at-frameHeader {
		return nil, time.Time{}, ErrDamaged
	}
	body := make([]byte, 4+n)
	if err := readFull(f, body, at+8); err != nil {
		return nil, time.Time{}, err
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
		return nil, time.Time{}, ErrDamaged
	}
	return body[4:], time.Unix(int64(binary.LittleEndian.Uint32(body)), 0), nil
}

// readFull returns ErrDamaged if the file is too short.
func readFull(f file, b []byte, at int64) error {
	_, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return ErrDamaged
	}
	return err
}

// replaceFile replaces a file atomically. After an error, it reports whether the file was
// replaced, although a crash may undo it.
func replaceFile(path string, content ...[]byte) (replaced bool, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	f, err := os.OpenFile(path+tmpSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return false, err
	}
	for _, b := range content {
		if err == nil {
			_, err = f.Write(b)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := os.Rename(path+tmpSuffix, path); err != nil {
		return false, err
	}
	return true, syncDir(dir)
}

// syncDir syncs a directory and the two above it, so that their entries survive a
// crash.
func syncDir(dir string) error {
	for _, d := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		f, err := os.Open(d)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
