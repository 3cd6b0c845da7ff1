// Package sink is the contract between the delivery of records and their destinations.
//
// Each destination is a directory below this one, with its configuration, code and tests.
// It imports this package and none of the delivery, and passes the tests of sinktest.
package sink

import (
	"context"

	"github.com/hindsight-events/hindsight/event"
)

// Sink sends records to one destination.
//
// Its Append methods depend on the record alone, so that a retry sends the same bytes,
// and do not retain it. Append methods and Send may be called concurrently.
type Sink interface {
	// AppendStream appends the name of the record's stream. Batches of one stream are
	// sent one after the other, in the order of the journal; batches of different
	// streams may be sent concurrently.
	AppendStream(dst []byte, r *event.Record) []byte

	// AppendRecord appends the record in the form in which Send sends it.
	AppendRecord(dst []byte, r *event.Record) []byte

	// Send sends a batch. It returns nil only after the destination has accepted every
	// record, as durably as it accepts any. Other outcomes should be an *Error, which
	// determines how the delivery proceeds. After an error that may be retried, the
	// next Send of the stream begins with the same records; more may follow them if
	// only this stream failed.
	//
	// Send returns soon after ctx ends, and neither changes nor retains the batch. A
	// Send that makes several requests calls BeginRequest before each.
	Send(ctx context.Context, b *Batch) error

	// Close releases the resources of the sink. It does not wait for a Send that has
	// not returned. No other method is called afterwards.
	Close() error
}

// DeadLetterer is a Sink that stores records which are dropped.
type DeadLetterer interface {
	// DeadLetter stores the records of a batch and the reason. It may be called
	// concurrently with Send.
	DeadLetter(b *Batch, reason string)
}
