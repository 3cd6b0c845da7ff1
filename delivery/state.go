package delivery

import (
	"errors"
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// State is what a Delivery is doing.
type State struct {
	// Since is when the batch that has been tried for longest was first tried;
	// zero while none is being tried.
	Since time.Time
	// Err is why an attempt failed last; nil if none has since the last success.
	Err error
	// Accepted is whether the destination has accepted anything since Run began.
	Accepted bool
	// NeedsOperator is what somebody has to mend so that all records arrive, although others
	// are accepted: why a stream is parked, or a gap record was refused. Nil: nothing.
	NeedsOperator error
	// ParkedErr is why a parked stream was refused last. Nil: none is parked, or was
	// refused since the process began.
	ParkedErr error
}

// stuckAfter is how long a batch may take before that is a reason to be called
// unready. A rolling restart of a destination takes less.
const stuckAfter = 5 * time.Minute

// State may be called at any time.
func (d *Delivery) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// Ready returns nil, or why records are not delivered: at once if somebody has to
// mend something, also where that concerns a single stream, or if nothing was ever
// accepted, and for any other reason after five minutes.
func (d *Delivery) Ready() error {
	s := d.State()
	stuck := !s.Since.IsZero() && time.Since(s.Since) >= stuckAfter
	switch {
	case stuck && s.Err == nil:
		s.Err = errors.New("the destination does not answer")
	case stuck:
	case s.Since.IsZero(), s.Err == nil, s.Accepted && !needsMending(s.Err):
		return s.NeedsOperator
	}
	return fmt.Errorf("stuck since %s: %w", s.Since.UTC().Format(time.RFC3339), s.Err)
}

func (d *Delivery) setState(s State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = s
}

// publish says what the delivery is doing.
func (l *loop) publish() {
	for len(l.tried) > 0 && l.tried[0].settled {
		l.tried = l.tried[1:]
	}
	s := State{Err: l.outage.err, Accepted: l.accepted, NeedsOperator: l.parking.mend, ParkedErr: l.parking.err}
	if s.NeedsOperator == nil {
		s.NeedsOperator = l.gapErr
	}
	if len(l.tried) > 0 {
		b := l.tried[0]
		s.Since = b.tried
		if f := b.stream.failing; f != nil && (f.alone || f.streamed) {
			s.Err = f.err
		}
	}
	l.setState(s)
}

// needsMending reports whether an attempt failed for a reason that a person has to
// fix.
func needsMending(err error) bool {
	var why *sink.Error
	if !errors.As(err, &why) {
		return false
	}
	switch why.Reason {
	case sink.ReasonBlocked, sink.ReasonNoSpace, sink.ReasonNotFound, sink.ReasonUnauthorized:
		return true
	default:
		return false
	}
}

// streamNeedsMending is needsMending for a stream that is refused while others are
// accepted.
func streamNeedsMending(err error) bool {
	var why *sink.Error
	if !errors.As(err, &why) {
		return false
	}
	return needsMending(err) || why.Reason == sink.ReasonRejected || why.Reason == sink.ReasonStreamLimit
}

// toMend returns the error of parked streams that a person has to fix, or nil.
func (l *loop) toMend() error {
	for _, s := range l.parking.streams {
		if s.failing == nil {
			continue
		}
		err := s.failing.err
		if gap := s.batch != nil && len(s.batch.gaps) > 0; gap || streamNeedsMending(err) {
			return fmt.Errorf("%d streams are refused, their records are parked; one of them is %s: %w", len(l.parking.streams), s.name, err)
		}
	}
	return nil
}
