// Package parked keeps the records of streams that a sink refuses while it accepts
// other streams, until it accepts them again. Each stream has a queue, in a
// directory or in memory; one bound applies to all queues together.
//
// In a directory each queue is an append-only file with a CRC over each record. A
// record survives a crash once Append has returned. A record that was dropped just
// before a crash may be returned once more.
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
	// Dir is the directory of the files; it is created when it is needed. If it is
	// empty, records are kept in memory and lost with the process.
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

// Open returns a store with the queues that its directory holds. A file that
// cannot be read is renamed, so that nothing takes its place, and logged.
func Open(o Options) (*Store, error) {
	s := &Store{dir: o.Dir, maxBytes: o.MaxBytes, log: o.Logger, queues: make(map[string]*Queue)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.maxBytes == 0 {
		s.maxBytes = defaultBytes(s.dir)
	}
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
				aside, renameErr := setAside(path)
				if renameErr != nil {
					return nil, fmt.Errorf("open parked records: %w", errors.Join(err, renameErr))
				}
				s.log.Error("parked records cannot be read, their file is kept under another name", "file", aside, "err", err)
			}
		}
	}
	return s, nil
}

// NewMemory returns a store in memory; maxBytes as in Options.
func NewMemory(maxBytes int64) *Store {
	s, _ := Open(Options{MaxBytes: maxBytes}) // only a directory can fail
	return s
}

func (s *Store) load(path string) error {
	q, cut, err := openQueue(path)
	if err != nil {
		return err
	}
	if cut > 0 {
		s.log.Warn("cut off the end of a file of parked records: it is damaged or unfinished", "file", path, "bytes", cut)
	}
	if q.records == 0 { // the process ended before it was removed
		return os.Remove(path)
	}
	q.store = s
	s.queues[q.name] = q
	return nil
}

// setAside renames a file to a name that no file has.
func setAside(path string) (aside string, err error) {
	for n := 0; ; n++ {
		aside = path + asideSuffix
		if n > 0 {
			aside += fmt.Sprintf(".%d", n)
		}
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, os.Rename(path, aside)
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

// Queue returns the queue of a stream, an empty one if there is none.
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

// Size returns how many records are parked, and their bytes.
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

// Excess returns the queue with most bytes, and the number of bytes by which all
// queues together exceed the bound. It returns nil if they do not exceed it.
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

// SetMaxBytes changes the bound; see Options.
func (s *Store) SetMaxBytes(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxBytes = n
	if n == 0 {
		s.maxBytes = defaultBytes(s.dir)
	}
}

func defaultBytes(dir string) int64 {
	if dir == "" {
		return int64(DefaultMemoryBytes)
	}
	return int64(DefaultDiskBytes)
}

// Durable reports whether the store survives the process.
func (s *Store) Durable() bool { return s.dir != "" }

// forget removes an empty queue from the store, unless another has replaced it.
func (s *Store) forget(q *Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[q.name] == q {
		delete(s.queues, q.name)
	}
}
