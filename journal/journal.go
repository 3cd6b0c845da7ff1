// Package journal is the bounded log of records between the intake and the
// sinks, with one cursor for each consumer.
//
// Records are appended once and read by every consumer at its own pace, in the
// order of the appends. What every consumer has acknowledged is let go of. When
// the log is full, Append blocks: nothing is dropped, and whoever appends has to
// stop reading from where the records come.
package journal

import (
	"context"

	"github.com/hindsight-events/hindsight/event"
)

// Journal is a log of records. It is safe for concurrent use.
type Journal interface {
	// Append adds records in the given order, as one group, and returns nil
	// once they are kept as well as this journal keeps anything. It
	// blocks while there is no room for them, until ctx ends. After an error
	// none of them is in the log. The records are not referenced afterwards.
	Append(ctx context.Context, records []event.Record) error

	// Tail returns how far a source has been journaled: the position of the
	// last record appended for it.
	Tail(source string) event.Position

	// Close refuses further appends and lets waiting calls return ErrClosed.
	Close() error
}

// Consumer reads a journal for one sink. Next is for one goroutine; Ack may be
// called from any.
type Consumer interface {
	// Next returns the entries after those it returned before: at least one,
	// at most max. It waits for one until ctx ends.
	Next(ctx context.Context, max int) ([]Entry, error)

	// Ack says that everything up to and including offset has been accepted
	// or was not wanted, and need not be kept for this consumer.
	Ack(offset uint64) error
}

// Entry is a record at its place in the journal.
type Entry struct {
	Offset uint64 // grows by one from record to record
	Record event.Record
}
