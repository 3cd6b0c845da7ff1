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
type Sink interface {
	// Send hands a batch over and returns nil only once the destination has
	// accepted all of it, as durably as it accepts anything. Any other outcome
	// is an error, best an *Error, which says what to do about it. After an
	// error that may be retried, the next Send brings the same records again,
	// in the same order.
	//
	// Send returns soon after ctx ends. It is called by one goroutine at a time
	// and must not keep or change the records.
	Send(ctx context.Context, batch []event.Record) error

	// Close lets go of what the sink holds. Nothing is sent afterwards. It does
	// not wait for a Send that did not return.
	Close() error
}

// Error says why a batch was not accepted and what to do about it. Any other
// error of a Send means: try again.
type Error struct {
	// Permanent means that trying again cannot help. Without Refused the
	// destination itself is gone for good, and delivery to it ends.
	Permanent bool

	// RetryAfter is how long the destination asked to be left alone; zero if it
	// did not say.
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

func (e *Error) Error() string {
	if len(e.Refused) > 0 {
		return fmt.Sprintf("%d records refused: %v", len(e.Refused), e.Err)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
