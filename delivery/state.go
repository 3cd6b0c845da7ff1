package delivery

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// State is the progress of a Delivery.
type State struct {
	// Since is the first attempt of the oldest incomplete batch; zero if there is none.
	Since time.Time
	// Err is the error of the last attempt; nil after a success.
	Err error
	// Accepted is set once the destination has accepted a batch since Run began.
	Accepted bool
	// NeedsOperator is a problem that an operator has to fix before all records can
	// arrive, although others are accepted: the failure of a parked stream, or a rejected
	// gap record. Nil: none.
	NeedsOperator error
	// ParkedErr is the last failure of a parked stream since the process began; nil if no
	// stream is parked.
	ParkedErr error
}

// unreadyAfter is the age of a batch from which the delivery is not ready, for any error.
// A rolling restart of a destination takes less.
const unreadyAfter = 5 * time.Minute

// State may be called at any time.
func (d *Delivery) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// Ready returns the reason why records are not delivered, or nil. A failure counts at
// once if an operator has to fix it, even for a single stream, or if nothing was ever
// accepted; any other after five minutes.
func (d *Delivery) Ready() error {
	s := d.State()
	overdue := !s.Since.IsZero() && time.Since(s.Since) >= unreadyAfter
	switch {
	case overdue && s.Err == nil:
		s.Err = errors.New("no response from the destination")
	case overdue:
	case s.Since.IsZero(), s.Err == nil, s.Accepted && !hasReason(s.Err, operatorReasons):
		return s.NeedsOperator
	}
	return fmt.Errorf("not delivering since %s: %w", s.Since.UTC().Format(time.RFC3339), s.Err)
}

// updateState publishes the state of the loop.
func (l *loop) updateState() {
	for len(l.attempted) > 0 && l.attempted[0].completed {
		l.attempted = l.attempted[1:]
	}
	s := State{Err: l.outage.err, Accepted: !l.acceptedAt.IsZero(), NeedsOperator: l.parking.needsOperator, ParkedErr: l.parking.err}
	if s.NeedsOperator == nil {
		s.NeedsOperator = l.gapErr
	}
	if len(l.attempted) > 0 {
		b := l.attempted[0]
		s.Since = b.firstAttempt
		if f := b.stream.failure; f != nil && (f.ownFault || f.streamOnly) {
			s.Err = f.err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
}

// operatorReasons are the reasons of failures that only an operator can end, and
// faultyOperatorReasons those of a faulty stream.
var (
	operatorReasons       = []string{sink.ReasonBlocked, sink.ReasonNoSpace, sink.ReasonNotFound, sink.ReasonUnauthorized}
	faultyOperatorReasons = append(slices.Clone(operatorReasons), sink.ReasonRejected, sink.ReasonStreamLimit)
)

func hasReason(err error, reasons []string) bool {
	var why *sink.Error
	return errors.As(err, &why) && slices.Contains(reasons, why.Reason)
}

// parkedNeedsOperator returns the failure of a parked stream that only an operator can
// end, or nil.
func (l *loop) parkedNeedsOperator() error {
	for _, s := range l.parking.streams {
		if s.failure == nil {
			continue
		}
		err := s.failure.err
		if gap := s.batch != nil && len(s.batch.gaps) > 0; gap || hasReason(err, faultyOperatorReasons) {
			return fmt.Errorf("%d streams are refused and parked; one of them is %s: %w", len(l.parking.streams), s.name, err)
		}
	}
	return nil
}
