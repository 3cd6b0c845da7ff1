// Package sink holds the contract between the delivery of records and the
// destinations they are delivered to, and the delivery loop itself.
//
// A destination is a folder below this one: its configuration, its code and its
// tests. Each passes the suite in sinktest.
package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// Sink is one destination.
//
// Its Append methods are functions of the record alone, so that what has to be
// sent again is the same bytes. They keep nothing of the record, and each of them
// and Send may be called at the same time.
type Sink interface {
	// AppendStream appends the name of the stream that a record belongs to.
	// Batches of one stream are sent one after the other, in the order of the
	// journal; those of different streams may be sent at once.
	AppendStream(dst []byte, r *event.Record) []byte

	// AppendRecord appends a record as it is going to be sent.
	AppendRecord(dst []byte, r *event.Record) []byte

	// Send hands a batch over and returns nil only once the destination has
	// accepted all of it, as durably as it accepts anything. Any other outcome
	// is an error, best an *Error, which says what to do about it. After an
	// error that may be retried, the next Send of that stream brings the same
	// records again, perhaps with further ones behind them if the stream alone
	// was refused.
	//
	// Send returns soon after ctx ends, and does not keep or change the batch. A
	// Send that makes several requests calls Begin before each.
	Send(ctx context.Context, b *Batch) error

	// Close lets go of what the sink holds. Nothing is sent afterwards. It does
	// not wait for a Send that did not return.
	Close() error
}

// DeadLetterer is implemented by a Sink that keeps records that are given up.
type DeadLetterer interface {
	// DeadLetter keeps the records of a batch, and why they were given up. It may
	// be called at the same time as Send.
	DeadLetter(b *Batch, reason string)
}

// Batch is a number of records of one stream.
type Batch struct {
	Stream string

	// Alone is set if the last attempt of the stream failed and the destination
	// has accepted other streams since. Something about these records is to blame
	// then, and a Sink may look for it.
	Alone bool

	Data []byte // the records as AppendRecord made them, one after the other
	Ends []int  // where each of them ends in Data
}

// Len is the number of records.
func (b *Batch) Len() int { return len(b.Ends) }

// Record returns the i-th record.
func (b *Batch) Record(i int) []byte {
	start := 0
	if i > 0 {
		start = b.Ends[i-1]
	}
	return b.Data[start:b.Ends[i]]
}

// Error says why a batch was not accepted and what to do about it. Any other
// error of a Send means: try again.
type Error struct {
	// Reason is a word for metrics, of a bounded set: one of Reasons.
	Reason string

	// Permanent means that trying again cannot help. Without Refused the
	// destination itself is gone for good, and delivery to it ends.
	Permanent bool

	// StreamOnly means that other streams need not wait with this one. Where a
	// Sink cannot tell, the delivery finds out by trying other streams.
	StreamOnly bool

	// Progress means that a part of the batch, which the sink does not send
	// again, was accepted by this attempt.
	Progress bool

	// RetryAfter is how long the destination asked to be left alone; zero if it
	// did not say. Nothing of this stream is sent before.
	RetryAfter time.Duration

	// Refused are the records that the destination will never accept. All
	// others of the batch have been accepted.
	Refused []Refusal

	Err error
}

// Refusal is one record that was refused for good.
type Refusal struct {
	Index  int    // in the batch
	Reason string // what the destination said
}

// Reasons are the values that Error.Reason may have, in metrics and docs. An
// empty one counts as ReasonOther.
var Reasons = []string{
	ReasonBlocked, ReasonClosed, ReasonNoSpace, ReasonNotFound, ReasonRateLimited, ReasonRejected,
	ReasonStreamLimit, ReasonTimeout, ReasonUnauthorized, ReasonUnavailable, ReasonOther,
}

const (
	ReasonBlocked      = "blocked"      // the destination has been told to take nothing
	ReasonClosed       = "closed"       // the destination is gone for good
	ReasonNoSpace      = "no_space"     // the destination's disk is full
	ReasonNotFound     = "not_found"    // what answers is not the destination
	ReasonRateLimited  = "rate_limited" // too much at once
	ReasonRejected     = "rejected"     // the destination does not take what was sent
	ReasonStreamLimit  = "stream_limit" // too many streams
	ReasonTimeout      = "timeout"      // no answer in time
	ReasonUnauthorized = "unauthorized" // the credentials are wrong or missing
	ReasonUnavailable  = "unavailable"  // no connection, or the destination is not well
	ReasonOther        = "other"
)

func (e *Error) Error() string {
	if len(e.Refused) > 0 {
		return fmt.Sprintf("%d records refused: %v", len(e.Refused), e.Err)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
