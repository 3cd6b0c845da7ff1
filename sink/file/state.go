package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"
)

// state is the content of the lock file. After a crash it determines whether an unfinished last line
// belongs to this sink, which may remove it, or to another program. It is saved before and after each
// append.
//
// It is synced when the file is opened and closed, but not for each append, which would double the
// number of syncs. While the machine runs, it is exact nevertheless, even after the process was
// killed. After a crash of the machine it may be an older one; see ownsTornLine.
type state struct {
	Began  time.Time `json:"began,omitzero"` // time of the first line of the file
	Synced int64     `json:"synced"`         // bytes of the file that are known to be synced
	// Appending is the number of bytes being written after them; 0: none.
	Appending int `json:"appending,omitempty"`
	// Before is the checksum of the last fingerprint bytes that are synced. It identifies
	// the file, which another may have replaced.
	Before uint32 `json:"before"`
	Boot   string `json:"boot,omitempty"` // of the machine; see fileSystem.BootID
	Closed bool   `json:"closed,omitempty"`
}

const (
	fingerprint = 64

	// stateSize is the size of the lock file: one sector of a disk, which is written
	// completely or not.
	stateSize = 512
)

// ownsTornLine reports whether the unfinished last line of a file, from start to size, belongs to
// an append of this sink.
func (s state) ownsTornLine(f file, start, size int64, boot string) (bool, error) {
	if s.Closed || start < s.Synced {
		return false, nil
	}
	if s.Boot != "" && s.Boot == boot && (s.Appending == 0 || size > s.Synced+int64(s.Appending)) {
		return false, nil
	}
	// After a crash of the machine, the line may belong to a later append.
	before, err := tailChecksum(f, s.Synced)
	return before == s.Before, err
}

// tailChecksum returns the checksum of the fingerprint bytes before an offset.
func tailChecksum(f file, offset int64) (uint32, error) {
	b := make([]byte, min(offset, fingerprint))
	if _, err := f.ReadAt(b, offset-int64(len(b))); err != nil {
		return 0, fmt.Errorf("read the end of the file: %w", err)
	}
	return crc32.ChecksumIEEE(b), nil
}

// loadState reads the state from the lock file. If there is none, as in the lock file of an older
// version, it returns a closed state, which owns no unfinished line, and false.
func loadState(f file) (s state, ok bool, err error) {
	b := make([]byte, stateSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return state{}, false, fmt.Errorf("read state: %w", err)
	}
	if json.Unmarshal(bytes.TrimSpace(b[:n]), &s) != nil || s.Synced < 0 || s.Appending < 0 {
		return state{Closed: true}, false, nil
	}
	return s, true, nil
}

// save writes the state to the lock file.
func (s state) save(f file) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	b = append(b, bytes.Repeat([]byte{' '}, max(0, stateSize-1-len(b)))...)
	if _, err := f.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// bootID returns an ID that changes when the machine restarts; empty: unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // Linux
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
