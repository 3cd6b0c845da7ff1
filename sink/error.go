package sink

import (
	"fmt"
	"time"
)

// Error is the reason why a batch was not accepted, and how to proceed. The delivery
// retries the batch after any other error.
type Error struct {
	// Reason is one of Reasons. It is a metric label.
	Reason string

	// Permanent means that a retry cannot succeed. Unless there are Rejected records,
	// it ends the delivery to the destination.
	Permanent bool

	// StreamOnly means that the failure does not concern other streams. If a Sink
	// cannot know, the delivery finds out by sending other streams.
	StreamOnly bool

	// Progress means that this attempt made the destination accept a part of the
	// batch, which the Sink will not send again.
	Progress bool

	// RetryAfter is the delay that the destination requested; 0: none. Nothing of
	// this stream is sent before it has passed.
	RetryAfter time.Duration

	// Rejected are the records that the destination will never accept. It has
	// accepted all others of the batch.
	Rejected []Rejection

	Err error
}

// Rejection is a record that the destination will never accept.
type Rejection struct {
	Index  int    // in the batch
	Reason string // as the destination states it
}

// Reasons are the values of Error.Reason. An empty one counts as ReasonOther.
var Reasons = []string{
	ReasonBlocked, ReasonClosed, ReasonNoSpace, ReasonNotFound, ReasonRateLimited, ReasonRejected,
	ReasonStreamLimit, ReasonTimeout, ReasonUnauthorized, ReasonUnavailable, ReasonOther,
}

const (
	ReasonBlocked      = "blocked"      // an administrator has blocked writes
	ReasonClosed       = "closed"       // the destination was closed for good
	ReasonNoSpace      = "no_space"     // the disk is full
	ReasonNotFound     = "not_found"    // another service answers at the address
	ReasonRateLimited  = "rate_limited" // a rate limit was exceeded
	ReasonRejected     = "rejected"     // the destination does not accept the content
	ReasonStreamLimit  = "stream_limit" // there are too many streams
	ReasonTimeout      = "timeout"      // no response in time
	ReasonUnauthorized = "unauthorized" // credentials are wrong or missing
	ReasonUnavailable  = "unavailable"  // no connection, or an internal error
	ReasonOther        = "other"
)

func (e *Error) Error() string {
	if len(e.Rejected) > 0 {
		return fmt.Sprintf("%d records rejected: %v", len(e.Rejected), e.Err)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
