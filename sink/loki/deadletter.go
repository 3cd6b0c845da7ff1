package loki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hindsight-events/hindsight/internal/excerpt"
	"github.com/hindsight-events/hindsight/sink"
)

// maxDeadLetterBytes bounds the file of dead letters. With its predecessor, that makes 64 MiB.
const maxDeadLetterBytes = 32 << 20

// deadLetter is a line of the file, in JSON.
type deadLetter struct {
	Time   time.Time `json:"time"`   // when it was written
	Status int       `json:"status"` // of the response; 0: none
	Error  string    `json:"error"`
	Labels string    `json:"labels"`
	Entry  struct {
		Timestamp time.Time         `json:"timestamp"`
		Line      string            `json:"line"`
		Metadata  map[string]string `json:"structured_metadata,omitempty"`
	} `json:"entry"`
}

// deadLetterLog stores dead letters in a file, or in the program's log if there is no file or it
// cannot be written. It is safe for concurrent use.
type deadLetterLog struct {
	path string // empty: none
	log  *slog.Logger

	mu sync.Mutex // serializes appends to the file
}

// write stores rejected records of a batch, and returns when the file is synced. The status codes
// are those of the rejections; nil: there was no response.
func (d *deadLetterLog) write(b *sink.Batch, rejected []sink.Rejection, statusCodes []int) {
	var letters []deadLetter
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for k, r := range rejected {
		e, err := decode(b.Record(r.Index))
		if err != nil { // never: AppendRecord has encoded it
			d.log.Error("a rejected record cannot be decoded", "stream", b.Stream, "err", err)
			continue
		}
		l := deadLetter{Time: time.Now().UTC(), Error: excerpt.Line(r.Reason, 1000), Labels: b.Stream}
		if statusCodes != nil {
			l.Status = statusCodes[k]
		}
		l.Entry.Timestamp, l.Entry.Line = e.time, e.line
		if len(e.metadata) > 0 {
			l.Entry.Metadata = make(map[string]string, len(e.metadata))
			for _, p := range e.metadata {
				l.Entry.Metadata[p.Name] = p.Value
			}
		}
		letters = append(letters, l)
		_ = encoder.Encode(l) // a buffer accepts every line
	}
	log := d.log
	if d.path != "" {
		err := d.append(lines.Bytes())
		if err == nil {
			return
		}
		log = log.With("dead_letter_err", err)
	}
	for _, l := range letters {
		log.Error("Loki rejected a record for good", "status", l.Status, "reason", l.Error, "stream", l.Labels,
			"timestamp", l.Entry.Timestamp, "line", excerpt.Line(l.Entry.Line, 2000), "structured_metadata", l.Entry.Metadata)
	}
}

// append appends lines to the file, which is renamed first if it would grow too large.
func (d *deadLetterLog) append(lines []byte) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return fmt.Errorf("create the directory of dead letters: %w", err)
	}
	info, err := os.Stat(d.path)
	if err == nil && info.Size() > 0 && info.Size()+int64(len(lines)) > maxDeadLetterBytes {
		if err := os.Rename(d.path, d.path+".1"); err != nil {
			return fmt.Errorf("rotate dead letters: %w", err)
		}
	}
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("open dead letters: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write dead letters: %w", err)
		}
	}()
	if info, err = f.Stat(); err != nil {
		return err
	}
	if last := []byte{'\n'}; info.Size() > 0 {
		if _, err := f.ReadAt(last, info.Size()-1); err != nil {
			return err
		}
		if last[0] != '\n' { // a crash has torn the last line
			lines = append([]byte{'\n'}, lines...)
		}
	}
	if _, err := f.Write(lines); err != nil {
		return errors.Join(err, f.Truncate(info.Size()))
	}
	return f.Sync()
}
