// Package parked stores the records of streams that a destination refuses while it accepts
// others, until it accepts them. Each stream has a queue, in a directory or in memory; one
// bound applies to all queues together.
//
// In a directory, each queue is an append-only file with a CRC for each record. Records
// survive a crash once Append has returned. Records that were dropped just before a crash
// may be returned again.
package parked

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hindsight-events/hindsight/internal/quantity"
)

// Defaults of Options.MaxBytes.
const (
	DefaultDiskBytes   quantity.Size = 64 << 20
	DefaultMemoryBytes quantity.Size = 4 << 20
)

// Options of a Store.
type Options struct {
	// Dir is the directory of the files. The first Append creates it. If it is empty,
	// records are stored in memory and lost with the process.
	Dir string

	// MaxBytes bounds the records of all queues together; 0: the default.
	MaxBytes int64

	Logger *slog.Logger // nil: no log
}

// Store holds the queues of one sink. It is safe for concurrent use.
type Store struct {
	dir string
	log *slog.Logger

	mu       sync.Mutex // guards the fields below; locked before the mutex of a Queue
	maxBytes int64
	queues   map[string]*Queue
}

// Open returns a store with the queues of its directory. A file that cannot be read is
// renamed, so that it is not overwritten, and logged.
func Open(o Options) (*Store, error) {
	s := &Store{dir: o.Dir, log: o.Logger, queues: make(map[string]*Queue)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.SetMaxBytes(o.MaxBytes)
	if s.dir == "" {
		return s, nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open parked records: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		switch {
		case strings.HasSuffix(e.Name(), suffix+tmpSuffix):
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("open parked records: %w", err)
			}
		case strings.HasSuffix(e.Name(), suffix):
			if err := s.load(path); err != nil {
				kept, renameErr := renameUnreadable(path)
				if renameErr != nil {
					return nil, fmt.Errorf("open parked records: %w", errors.Join(err, renameErr))
				}
				s.log.Error("cannot read a file of parked records; renamed it", "file", kept, "err", err)
			}
		}
	}
	return s, nil
}

// NewMemory returns a store in memory; maxBytes as in Options.
func NewMemory(maxBytes int64) *Store {
	s, _ := Open(Options{MaxBytes: maxBytes}) // only reading a directory can fail
	return s
}

// load adds the queue of a file.
func (s *Store) load(path string) error {
	q, truncated, err := openQueue(path)
	if err != nil {
		return err
	}
	if truncated > 0 {
		s.log.Warn("truncated a file of parked records at a damaged or incomplete record", "file", path, "bytes", truncated)
	}
	if q.records == 0 { // the process ended before it removed the file
		return os.Remove(path)
	}
	q.store = s
	s.queues[q.name] = q
	return nil
}

// renameUnreadable gives a file a name that is not in use.
func renameUnreadable(path string) (name string, err error) {
	for n := 0; ; n++ {
		name = path + unreadableSuffix
		if n > 0 {
			name += fmt.Sprintf(".%d", n)
		}
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, os.Rename(path, name)
		} else if err != nil {
			return "", err
		}
	}
}

// Queues returns the queues that hold records, ordered by name.
func (s *Store) Queues() []*Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Queue
	for _, q := range s.queues {
		if q.Len() > 0 {
			all = append(all, q)
		}
	}
	slices.SortFunc(all, func(a, b *Queue) int { return cmp.Compare(a.name, b.name) })
	return all
}

// Queue returns the queue of a stream, which may be empty.
func (s *Store) Queue(name string) *Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[name]
	if q == nil {
		q = &Queue{store: s, name: name}
		if s.dir != "" {
			q.path = filepath.Join(s.dir, fileName(name))
		}
		s.queues[name] = q
	}
	return q
}

// remove removes an empty queue, unless another has replaced it.
func (s *Store) remove(q *Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[q.name] == q {
		delete(s.queues, q.name)
	}
}

// Size returns the number of parked records and their bytes.
func (s *Store) Size() (records int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		n, b := q.size()
		records += n
		bytes += b
	}
	return records, bytes
}

// Excess returns the largest queue, and the bytes by which all queues together exceed the
// bound. It returns nil if they do not exceed it.
func (s *Store) Excess() (largest *Queue, over int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := int64(-1)
	for _, q := range s.queues {
		_, b := q.size()
		over += b
		if b > most {
			largest, most = q, b
		}
	}
	if over -= s.maxBytes; over <= 0 {
		return nil, 0
	}
	return largest, over
}

// MaxBytes returns the bound.
func (s *Store) MaxBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxBytes
}

// SetMaxBytes changes the bound; 0: the default.
func (s *Store) SetMaxBytes(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case n > 0:
		s.maxBytes = n
	case s.dir == "":
		s.maxBytes = int64(DefaultMemoryBytes)
	default:
		s.maxBytes = int64(DefaultDiskBytes)
	}
}

// Durable reports whether the store survives the process.
func (s *Store) Durable() bool { return s.dir != "" }
