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

// state tells the unfinished line that a crash of this sink left at the end of
// the file from one that somebody else wrote: only the former may be cut off.
// It is the content of the lock file, written before and after each append.
//
// It is synced when the file is opened and closed, but not for each append, which
// would double the syncs. While the machine runs, it is exact all the same, also
// after a kill: whoever opens the file next reads what was written last. After a
// crash of the machine it may be an older one; see mine.
type state struct {
	Began  time.Time `json:"began,omitzero"` // when the first line of the file was written
	Synced int64     `json:"synced"`         // bytes of the file that are known to be synced
	// Appending is how many bytes are being written behind them; 0: none.
	Appending int `json:"appending,omitempty"`
	// Before is the checksum of the last fingerprint bytes of those that are
	// synced. With it a file that took the place of ours is not taken for it.
	Before uint32 `json:"before"`
	Boot   string `json:"boot,omitempty"` // of the machine; see disk.BootID
	Closed bool   `json:"closed,omitempty"`
}

const (
	fingerprint = 64

	// stateSize is that of the lock file: within one sector of a disk, so that it
	// is replaced as a whole or not at all.
	stateSize = 512
)

// ownsTornLine reports whether the unfinished last line of a file is what is left of an
// append of this sink: the line begins at start, and the file ends at size.
func (s state) ownsTornLine(f file, start, size int64, boot string) (bool, error) {
	if s.Closed || start < s.Synced {
		return false, nil
	}
	if s.Boot != "" && s.Boot == boot && (s.Appending == 0 || size > s.Synced+int64(s.Appending)) {
		return false, nil
	}
	// After a crash of the machine it may have been a later append.
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

// loadState reads the state from the lock file. What is not a state, as in the
// lock file of a version that kept none, gives the zero state, by which no
// unfinished line is ours, and false.
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

// save writes the state into the lock file.
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

// bootID tells this run of the machine from others; empty where it is not known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // Linux
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
