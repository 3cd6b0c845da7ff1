// Package journal is the bounded log of records between the intake and the sinks, with a cursor
// for each consumer.
//
// Records are appended once and read by every consumer at its own pace, in the order of the
// appends. Records that all consumers have acknowledged are deleted. When the log is full, Append
// waits, so that the caller stops reading from the API server. If the consumers that are behind
// allow it, their oldest records are dropped instead and a gap is declared to them.
//
// The log is kept in a directory (Open) or in memory (NewMemory). In a directory, records are
// durable once Append has returned. A cursor is written before Ack returns, so that a killed
// process repeats only what was not acknowledged; it is synced within a second, so that a crashed
// machine may repeat the acknowledgements of that second. A cursor never skips records.
//
// Damage loses the damaged records only. Each consumer receives a gap record in their place.
//
// Package storage has the files: their format, reading and recovery.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/wait"
	"github.com/hindsight-events/hindsight/journal/storage"
)

// ErrClosed is returned by calls once the journal is closed or the consumer removed.
var ErrClosed = errors.New("journal is closed")

// Defaults of Options.MaxBytes.
const (
	DefaultMemoryBytes = 32 << 20
	DefaultDiskBytes   = 1 << 30
)

const (
	// A full journal has at least so many segments, so that garbage collection frees space early.
	minSegments     = 16
	maxSegmentBytes = 16 << 20
)

// Options of a journal.
type Options struct {
	// MaxBytes is the capacity, framing included. A larger group of records is accepted once the
	// journal is empty.
	MaxBytes int64

	// Consumers are all consumers of the journal; see SetConsumers.
	Consumers []ConsumerOptions

	// Namespace is the namespace of gap records, which are Events.
	Namespace string

	// OnDrop is called for records that a consumer will not receive, with the cause of the gap
	// record or CauseRemoved. It must not call the journal. May be nil.
	OnDrop func(consumer string, cause event.Cause, records int)

	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Journal is a log of records. It is safe for concurrent use.
type Journal struct {
	fs              storage.FS
	maxBytes        int64
	maxSegmentBytes int64
	namespace       string
	onDrop          func(consumer string, cause event.Cause, records int)
	log             *slog.Logger
	metrics         *collector
	truncatedBytes  int64

	appending  chan struct{} // Append → writer: a request is staged
	collecting chan struct{} // Ack, writer → collectGarbage: segments may be garbage
	moved      chan struct{} // Ack → collectGarbage: a cursor is to be synced
	changed    chan struct{} // collectGarbage, Append → writer: space was freed or a request cancelled
	closing    chan struct{}
	goroutines sync.WaitGroup

	configuring sync.Mutex // held by SetConsumers and Close
	deleting    sync.Mutex // held while segments are deleted; taken before mu

	// mu guards these fields, and the marked fields of consumers. It is never held during
	// file access.
	mu          sync.Mutex
	closed      bool
	staged      []*request // not yet taken by the writer
	consumers   map[string]*Consumer
	committed   storage.Log
	used        int64  // bytes of all segments
	next        uint64 // offset of the next record
	tail        map[string]event.Position
	appended    chan struct{} // closed and replaced when records are added
	bytesWanted int64         // by the writer; 0: it does not wait
	blocked     blocked
}

// NewMemory returns a journal that is kept in memory, encoded, and lost with the process.
func NewMemory(o Options) (*Journal, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMemoryBytes
	}
	return open(storage.NewMemory(), o)
}

// Open opens the journal in a directory, which is created if it is missing. Cursors of consumers
// that are not declared are deleted. It fails if the directory is not writable or in use by
// another process; damage is logged and no failure.
func Open(dir string, o Options) (*Journal, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultDiskBytes
	}
	d, err := storage.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j, err := open(d, o)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open journal in %s: %w", dir, err)
	}
	return j, nil
}

func open(fs storage.FS, o Options) (*Journal, error) {
	j := &Journal{
		fs:              fs,
		maxBytes:        o.MaxBytes,
		maxSegmentBytes: min(o.MaxBytes/minSegments, maxSegmentBytes),
		namespace:       o.Namespace,
		onDrop:          o.OnDrop,
		log:             o.Logger,
		appending:       make(chan struct{}, 1),
		collecting:      make(chan struct{}, 1),
		moved:           make(chan struct{}, 1),
		changed:         make(chan struct{}, 1),
		closing:         make(chan struct{}),
		consumers:       make(map[string]*Consumer),
		appended:        make(chan struct{}),
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if j.onDrop == nil {
		j.onDrop = func(string, event.Cause, int) {}
	}
	recovered, err := storage.Recover(fs, j.log)
	if err != nil {
		return nil, err
	}
	j.committed, j.used = recovered.Log, recovered.Log.Bytes()
	j.next, j.tail = recovered.Next, recovered.Positions
	j.truncatedBytes = recovered.TruncatedBytes
	err = j.setConsumers(o.Consumers)
	if err == nil {
		j.metrics, err = newCollector(j, o.Registerer)
	}
	if err != nil {
		recovered.Writer.Close()
		for _, c := range j.consumers {
			c.file.Close()
		}
		return nil, err
	}
	w := &writer{j: j, out: recovered.Writer}
	j.goroutines.Go(w.run)
	j.goroutines.Go(j.collectGarbage)
	return j, nil
}

// Append adds records in the given order, as one group, and returns nil once they are durable, or
// in memory. It waits while the journal is full or cannot be written, until ctx ends. After an
// error none of the records is in the log. It does not retain the records.
//
// A group is synced as a whole: one of up to a MiB or two takes no longer than a single record. A
// record beyond 16 MiB is refused.
//
// Records without an Event only move the position of their source. Append does not wait for them:
// they are written with the next record or within a second.
func (j *Journal) Append(ctx context.Context, records []event.Record) error {
	if len(records) == 0 {
		return nil
	}
	r, err := newRequest(ctx, records)
	if err != nil {
		return err
	}
	defer r.release()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.staged = append(j.staged, r)
	j.mu.Unlock()
	wait.Notify(j.appending)
	select {
	case err = <-r.done:
	case <-ctx.Done():
		if j.unstage(r) {
			return ctx.Err()
		}
		// The writer has the request and decides.
		wait.Notify(j.changed)
		err = <-r.done
	}
	return err
}

// unstage removes a request unless the writer has taken it.
func (j *Journal) unstage(r *request) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.Index(j.staged, r)
	if i < 0 {
		return false
	}
	j.staged = slices.Delete(j.staged, i, i+1)
	return true
}

// Tail returns how far a source has been journaled: the position of the last record that was
// appended for it to all consumers.
func (j *Journal) Tail(source string) event.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tail[source]
}

// Positions returns how far a consumer has acknowledged each source, or nil if there is no such
// consumer.
func (j *Journal) Positions(consumer string) map[string]event.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.consumers[consumer]
	if c == nil {
		return nil
	}
	return maps.Clone(c.cursor.Positions)
}

// Close refuses further appends, makes waiting calls return ErrClosed, and saves the cursors.
func (j *Journal) Close() error {
	j.configuring.Lock()
	defer j.configuring.Unlock()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.closing)
	j.mu.Unlock()

	j.goroutines.Wait()
	j.metrics.close()
	var errs []error
	for _, c := range j.sortedConsumers() {
		errs = append(errs, c.close())
	}
	return errors.Join(append(errs, j.fs.Close())...)
}
