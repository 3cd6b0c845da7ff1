// Package journal is the bounded log of records between the intake and the
// sinks, with one cursor for each consumer.
//
// Records are appended once and read by every consumer at its own pace, in the
// order of the appends. What every consumer has acknowledged is let go of. When
// the log is full, Append waits, and whoever appends has to stop reading from
// where the records come; or, where the consumer that is behind has agreed to
// it, its oldest records are dropped and a gap record tells it so.
//
// There is one log and two places to keep it: a directory (Open) and memory
// (NewMemory). In a directory, a record is kept once Append has returned: its
// bytes and the names of the files have been synced. A consumer's cursor is
// written before Ack returns, so that a killed process repeats only what was
// not acknowledged; it is synced within a second, so that a lost machine may
// repeat the acknowledgements of that second. It never skips.
//
// What is lost by damage is the damaged records and nothing behind them. Each
// consumer finds a gap record in their place.
//
// The files, all integers little-endian, all checksums CRC32C:
//
//	<first offset, 20 digits>.log   a segment: a header, then frames (segment.go)
//	<name, path-escaped>.cursor     two slots, used in turn (cursor.go)
//	lock                            held with flock while the journal is open
//	*.tmp                           a file that was not finished; removed
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/event"
)

// ErrClosed is what waiting and later calls return once the journal has been
// closed, or the consumer has been removed from it.
var ErrClosed = errors.New("journal is closed")

// Defaults of Options.MaxBytes.
const (
	DefaultMemoryBytes = 32 << 20
	DefaultDiskBytes   = 1 << 30
)

// Options of a journal.
type Options struct {
	// MaxBytes bounds the records with what they are wrapped in. A group of
	// records that is larger passes alone, when nothing else is kept.
	MaxBytes int64

	// Consumers are all that read the journal; see SetConsumers.
	Consumers []ConsumerOptions

	// Namespace is our own: gap records are Events in it.
	Namespace string

	// OnDrop is told of records that a consumer will not get: by the causes
	// of gap records, overflow and damage, and by CauseRemoved. May be nil. It must
	// not call back.
	OnDrop func(consumer string, cause event.Cause, records int)

	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// ConsumerOptions declare a consumer.
type ConsumerOptions struct {
	Name     string // under which its cursor is kept
	WhenFull WhenFull
	Start    Start
}

// WhenFull is what happens when the journal is full because this consumer is
// behind.
type WhenFull string

const (
	Block      WhenFull = "block"       // Append waits; the default
	DropOldest WhenFull = "drop_oldest" // its oldest records are dropped, a gap record says so
)

// Start is where a consumer begins that has no cursor yet.
type Start string

const (
	StartTail   Start = "tail"   // behind everything appended so far; the default
	StartOldest Start = "oldest" // at the oldest record that is still kept
)

// Consumer reads a journal for one sink. Next is for one goroutine, and so are
// Read and Lose; Ack may be called from any.
type Consumer interface {
	// Next visits the entries after those it visited before, at least one and at
	// most max, fewer where they are large, and returns how many. Gap records that
	// stand for one stretch share an offset and come together, beyond max if need
	// be.
	//
	// Records addressed to others and such that only move a position are not
	// among them. It waits for an entry until ctx ends; what there is, it visits
	// even then. visit must not call the consumer.
	Next(ctx context.Context, max int, visit func(Entry)) (int, error)

	// Read visits records that Next has visited and that are not acknowledged,
	// in the order of their places, once more. A record and its Event are valid
	// until visit returns. It returns at the first that cannot be read: with
	// ErrDamaged if it never will be.
	Read(locations []Location, visit func(*event.Record)) error

	// ReplaceWithGap gives up an entry that cannot be read, and returns the gap record that
	// says so. Its offset is acknowledged as before: once the gap record is
	// accepted in its place.
	ReplaceWithGap(offset uint64) event.Record

	// Ack says that everything up to and including offset has been accepted
	// or was not wanted, and need not be kept for this consumer. It returns
	// once the cursor has been handed to the operating system. Where that
	// fails, it is logged and repeated, and nothing is let go of before.
	Ack(offset uint64) error
}

// Entry is a record at its place in the journal.
type Entry struct {
	Offset uint64 // grows from record to record

	// Location is zero for a gap record that is not in the log.
	Location Location

	// Record and its Event are valid until visit returns, but for a gap record
	// that is not in the log.
	Record *event.Record
}

// Journal is a log of records. It is safe for concurrent use.
type Journal struct {
	storage   storage
	maxBytes  int64
	segBytes  int64 // a segment is closed before it grows beyond
	namespace string
	dropped   func(string, event.Cause, int)
	log       *slog.Logger
	metrics   *collector

	work    chan struct{} // Append → write: something is staged
	kick    chan struct{} // Ack, write → tend: look whether something can be let go of
	room    chan struct{} // tend, Append → write: look again
	closing chan struct{}
	writing sync.WaitGroup // write
	tending sync.WaitGroup // tend

	setting sync.Mutex // held by SetConsumers and Close

	// mu guards what follows, and the fields of consumers and segments that
	// say so. It is never held while a file is read or written.
	mu        sync.Mutex
	closed    bool
	staged    []*request // by Append, not taken by write yet
	consumers map[string]*consumer
	segments  []*segment // oldest first, the last is written to; never changed in place
	size      int64      // committed bytes of the last segment
	used      int64      // bytes of all segments
	next      uint64     // offset of the next record
	tail      map[string]event.Position
	appended  chan struct{} // closed and replaced when records are added
	need      int64         // bytes that write waits for; 0 while it does not
	blocked   blocking
	cutBytes  int64
}

// NewMemory returns a journal that is kept in memory, encoded, and is gone with
// the process.
func NewMemory(o Options) (*Journal, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMemoryBytes
	}
	return open(newMemory(), o)
}

// Open opens the journal kept in a directory, which is made if it is missing.
// The cursors of consumers that are not declared any more are deleted. It fails
// if the directory cannot be written to, or is in use by another process; damage
// to its files is logged and does not make it fail.
func Open(dir string, o Options) (*Journal, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultDiskBytes
	}
	d, err := openDirectory(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j, err := open(d, o)
	if err != nil {
		d.close()
		return nil, fmt.Errorf("open journal in %s: %w", dir, err)
	}
	return j, nil
}

func open(s storage, o Options) (*Journal, error) {
	j := &Journal{
		storage:   s,
		maxBytes:  o.MaxBytes,
		segBytes:  min(o.MaxBytes/segmentsAtLeast, maxSegmentBytes),
		namespace: o.Namespace,
		dropped:   o.OnDrop,
		log:       o.Logger,
		work:      make(chan struct{}, 1),
		kick:      make(chan struct{}, 1),
		room:      make(chan struct{}, 1),
		closing:   make(chan struct{}),
		consumers: make(map[string]*consumer),
		tail:      make(map[string]event.Position),
		appended:  make(chan struct{}),
		next:      1,
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if j.dropped == nil {
		j.dropped = func(string, event.Cause, int) {}
	}
	w, err := j.recover()
	if err != nil {
		return nil, err
	}
	err = j.setConsumers(o.Consumers)
	if err == nil {
		j.metrics, err = newCollector(j, o.Registerer)
	}
	if err != nil {
		w.close()
		for _, c := range j.consumers {
			c.file.close()
		}
		return nil, err
	}
	j.writing.Go(func() { j.write(w) })
	j.tending.Go(j.tend)
	return j, nil
}

// Append adds records in the given order, as one group, and returns nil once
// they are kept as well as this journal keeps anything. It waits while there is
// no room for them or they cannot be written, until ctx ends. After an error
// none of them is in the log. The records are not referenced afterwards.
//
// A group is synced as a whole: one of up to a MiB or two costs no more time
// than a single record does. A record beyond 16 MiB is refused.
//
// Records without an Event are not waited for: they only move the position of
// their source, and are kept with the next record or within a second.
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
	notify(j.work)
	select {
	case err = <-r.done:
	case <-ctx.Done():
		if j.withdraw(r) {
			return ctx.Err()
		}
		// What is being written cannot be taken back: the outcome decides.
		notify(j.room)
		err = <-r.done
	}
	return err
}

// Tail returns how far a source has been journaled: the position of the last
// record appended for it to all consumers.
func (j *Journal) Tail(source string) event.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tail[source]
}

// Positions returns the positions that a consumer's cursor stands for: for each
// source, how far it has been acknowledged. Nil if there is no such consumer.
func (j *Journal) Positions(name string) map[string]event.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.consumers[name]
	if c == nil {
		return nil
	}
	return maps.Clone(c.cursor.positions)
}

// Close refuses further appends, lets waiting calls return ErrClosed, and saves
// the cursors. It returns once nothing is written any more.
func (j *Journal) Close() error {
	j.setting.Lock()
	defer j.setting.Unlock()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.closing)
	j.mu.Unlock()

	j.writing.Wait()
	j.tending.Wait()
	j.metrics.close()
	var errs []error
	for _, c := range j.all() {
		errs = append(errs, c.close())
	}
	return errors.Join(append(errs, j.storage.close())...)
}

// all returns the consumers in the order of their names.
func (j *Journal) all() []*consumer {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]*consumer, 0, len(j.consumers))
	for _, name := range slices.Sorted(maps.Keys(j.consumers)) {
		all = append(all, j.consumers[name])
	}
	return all
}

// notify wakes whoever reads from a channel of capacity one; if it has been
// woken already, once is enough.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// blocking is the time for which nothing could be appended.
type blocking struct {
	since time.Time     // zero while appends go through
	err   string        // empty: it is full
	told  bool          // it has been logged
	total time.Duration // up to since
}
