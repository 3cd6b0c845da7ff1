package loki

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxDeadLetterBytes bounds the file of dead letters. With the one before it, that makes
// 64 MiB.
const maxDeadLetterBytes = 32 << 20

// deadLetters keep what Loki refuses for good: a line of JSON each, in a file,
// or in the log where there is none or it cannot be written. It is safe for
// concurrent use.
type deadLetters struct {
	path string // empty: none
	log  *slog.Logger

	mu   sync.Mutex // guards the rest
	file *os.File
	size int64
}

// deadLetter is an entry that was refused.
type deadLetter struct {
	Time   time.Time `json:"time"`   // of the refusal
	Status int       `json:"status"` // of the answer
	Error  string    `json:"error"`
	Labels string    `json:"labels"`
	Entry  struct {
		Timestamp time.Time         `json:"timestamp"`
		Line      string            `json:"line"`
		Metadata  map[string]string `json:"structured_metadata,omitempty"`
	} `json:"entry"`

	entry entry
}

// write keeps a letter. It does not fail: what cannot be written to the file is
// logged.
func (d *deadLetters) write(l deadLetter) {
	l.Time = time.Now().UTC()
	l.Entry.Timestamp = l.entry.time
	l.Entry.Line = l.entry.line
	if len(l.entry.metadata) > 0 {
		l.Entry.Metadata = make(map[string]string, len(l.entry.metadata))
		for _, p := range l.entry.metadata {
			l.Entry.Metadata[p.Name] = p.Value
		}
	}
	l.Error = excerpt(l.Error, 1000)

	log := d.log
	if d.path != "" {
		err := d.append(l)
		if err == nil {
			return
		}
		log = log.With("dead_letter_err", err)
	}
	log.Error("Loki refuses a record for good", "status", l.Status, "reason", l.Error, "stream", l.Labels,
		"timestamp", l.Entry.Timestamp, "line", excerpt(l.Entry.Line, 2000), "structured_metadata", l.Entry.Metadata)
}

func (d *deadLetters) append(l deadLetter) error {
	line, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode dead letter: %w", err)
	}
	line = append(line, '\n')
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.makeRoom(int64(len(line))); err != nil {
		return err
	}
	n, err := d.file.Write(line)
	d.size += int64(n)
	if err != nil && n > 0 {
		// The next letter begins on a line of its own.
		if d.file.Truncate(d.size-int64(n)) == nil {
			d.size -= int64(n)
		}
	}
	if err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	return nil
}

// makeRoom opens the file, and begins a new one where it would grow too large.
func (d *deadLetters) makeRoom(n int64) error {
	if d.file != nil && d.size+n > maxDeadLetterBytes {
		d.file.Close() // nothing depends on it
		d.file = nil
	}
	if d.file != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return fmt.Errorf("make the directory of dead letters: %w", err)
	}
	if info, err := os.Stat(d.path); err == nil && info.Size() > 0 && info.Size()+n > maxDeadLetterBytes {
		if err := os.Rename(d.path, d.path+".1"); err != nil {
			return fmt.Errorf("rotate dead letters: %w", err)
		}
	}
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("open dead letters: %w", err)
	}
	d.size, err = endLine(f)
	if err != nil {
		return errors.Join(fmt.Errorf("open dead letters: %w", err), f.Close())
	}
	d.file = f
	return nil
}

// endLine ends a line that a crash has torn, and returns the file's size.
func endLine(f *os.File) (size int64, err error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	last := []byte{0}
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return info.Size(), nil
	}
	_, err = f.Write([]byte{'\n'})
	return info.Size() + 1, err
}

// sync makes what was written last.
func (d *deadLetters) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("sync dead letters: %w", err)
	}
	return nil
}

func (d *deadLetters) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}
