package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// holder is the time in which the Lease is ours. Only run's goroutine touches
// it.
type holder struct {
	*Lease
	lease *coordinationv1.Lease // as last written
}

// errTakenOver says that the Lease is another's; no further attempt can succeed.
var errTakenOver = errors.New("another replica took it over")

var errTooLate = errors.New("the renewal succeeded, but after the renew deadline")

// run leads, and renews the Lease until whoever leads has ended.
func (t *holder) run(ctx context.Context, held Checkpoint, lead func(context.Context, Checkpoint) error) error {
	if ctx.Err() != nil { // while the Lease was taken over
		return t.release()
	}
	leading, end := context.WithCancelCause(ctx)
	defer end(nil)
	var leadErr error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		leadErr = lead(leading, held)
	}()

	if why := t.renewUntil(ended); why != nil {
		t.deadline.end()
		t.log.Error("lost the lease, nothing more may be sent", "lease", t.describe(), "err", why)
		lost := fmt.Errorf("%w: %w", ErrLost, why)
		end(lost)
		<-ended
		if errors.Is(leadErr, ErrLost) || errors.Is(leadErr, context.Canceled) {
			leadErr = nil // it says no more than lost does
		}
		return errors.Join(lost, leadErr)
	}
	return errors.Join(leadErr, t.release())
}

// renewUntil renews the Lease until ended is closed, or returns how it was lost.
func (t *holder) renewUntil(ended <-chan struct{}) error {
	pause := time.NewTimer(t.pause(time.Now()))
	defer pause.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-pause.C:
		}
		begun := time.Now()
		if _, lost := t.attempt(t.Identity); lost != nil {
			return lost
		}
		pause.Reset(t.pause(begun))
	}
}

// release writes the Lease for the last time, without a holder. It is tried for
// as long as the Lease is ours.
func (t *holder) release() error {
	defer t.deadline.end()
	for {
		begun := time.Now()
		done, lost := t.attempt("")
		switch {
		case lost != nil:
			return fmt.Errorf("%w before it could be released: %w", ErrLost, lost)
		case done:
			t.log.Info("released the lease", "lease", t.describe())
			return nil
		}
		time.Sleep(t.pause(begun))
	}
}

// pause is until the next attempt, after one that was begun then.
func (t *holder) pause(begun time.Time) time.Duration {
	_, left := t.deadline.check()
	return max(0, min(t.RetryPeriod-time.Since(begun), left))
}

// attempt tries once to write the Lease for a holder, us or nobody, and reports
// whether that succeeded; lost, if it never will.
func (t *holder) attempt(to string) (done bool, lost error) {
	renewed, left := t.deadline.check()
	if left <= 0 {
		return false, t.overdue(renewed)
	}
	// Of its own: the end of Run's context is no reason to give up the Lease
	// while lead still works.
	ctx, cancel := context.WithTimeoutCause(context.Background(), left, fmt.Errorf("%w before the renew deadline", errNoAnswer))
	defer cancel()
	err := t.write(ctx, to)
	if errors.Is(err, errTakenOver) {
		return false, err
	}
	t.report(ctx, err)
	return err == nil, nil
}

// overdue says since when the Lease could not be renewed, and why.
func (t *holder) overdue(renewed clockReading) error {
	err := fmt.Errorf("it was last renewed %v ago, at %s",
		t.deadline.now().since(renewed).Round(time.Millisecond), renewed.wall.UTC().Format(time.RFC3339))
	if last := t.health.last(); last != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return fmt.Errorf("%w: this process or its machine stood still, or its clock was set", err)
}

// write writes the Lease for a holder. That it was written by somebody else
// meanwhile, or deleted, is overcome as long as it is ours; if it is another's,
// that is errTaken.
func (t *holder) write(ctx context.Context, to string) error {
	begun := t.deadline.now()
	written, err := t.api.update(ctx, t.renewedLease(t.lease, to))
	// An update of what was deleted is a conflict too, as its uid is known.
	if conflict(err) || apierrors.IsNotFound(err) {
		written, err = t.rewrite(ctx, to)
	}
	if err != nil {
		return err
	}
	t.lease = written
	if !t.deadline.renew(begun) {
		return errTooLate // the next attempt finds the Lease overdue
	}
	return nil
}

// rewrite is write after somebody else wrote the Lease or deleted it.
func (t *holder) rewrite(ctx context.Context, to string) (*coordinationv1.Lease, error) {
	found, err := t.api.get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		t.log.Warn("the lease was deleted while it was ours; it is made again", "lease", t.describe())
		anew := t.lease.DeepCopy()
		anew.ObjectMeta = metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name, Labels: anew.Labels, Annotations: anew.Annotations}
		return t.api.create(ctx, t.renewedLease(anew, to))
	case err != nil:
		return nil, err
	case to == "" && released(found):
		return found, nil // by a request whose answer did not arrive
	case holderOf(found) == "" && !released(found):
		t.log.Warn("the lease was left without a holder while it was ours; it is taken back", "lease", t.describe())
		found.Spec.AcquireTime = t.lease.Spec.AcquireTime
		if said, ok := t.lease.Annotations[annotation]; ok {
			metav1.SetMetaDataAnnotation(&found.ObjectMeta, annotation, said)
		}
		return t.api.update(ctx, t.renewedLease(found, to))
	case !holds(found, t.Identity, t.lease.Spec.AcquireTime):
		return nil, fmt.Errorf("%w: its holder is now %q", errTakenOver, holderOf(found))
	default:
		return t.api.update(ctx, t.renewedLease(found, to))
	}
}

// renewedLease returns the Lease as it is to be written: renewed, with what is to be
// kept.
func (t *holder) renewedLease(l *coordinationv1.Lease, to string) *coordinationv1.Lease {
	l = l.DeepCopy()
	renew(l, to, t.Duration)
	if to == "" {
		l.Spec.AcquireTime = nil // see released
	}
	held := t.checkpoint.Load()
	if held == nil {
		return l
	}
	said, err := encode((*held)())
	t.metrics.bytes.Set(float64(len(said)))
	if others := otherAnnotations(l); err == nil && others+len(annotation)+len(said) > maxAllBytes {
		err = fmt.Errorf("annotation %s would have %d bytes, and all annotations of the Lease may have %d together, of which others take %d: remove those", annotation, len(said), maxAllBytes, others)
	}
	switch began, lasted := t.unsaved.report(err); {
	case err != nil && began:
		t.log.Error("the positions do not fit into the lease, which keeps former ones; a failover will resend more Events", "lease", t.describe(), "err", err)
	case err == nil && lasted > 0:
		t.log.Info("the present positions fit into the lease again", "lease", t.describe(), "after", lasted.Round(time.Second))
	}
	if err != nil {
		return l
	}
	if l.Annotations == nil {
		l.Annotations = make(map[string]string, 1)
	}
	l.Annotations[annotation] = said
	return l
}

// otherAnnotations is the size of the annotations of a Lease that are not ours, as
// the API server counts it.
func otherAnnotations(l *coordinationv1.Lease) (n int) {
	for key, value := range l.Annotations {
		if key != annotation {
			n += len(key) + len(value)
		}
	}
	return n
}

// renew sets what says who holds a Lease from now on.
func renew(l *coordinationv1.Lease, to string, duration time.Duration) {
	now := metav1.NewMicroTime(time.Now())
	seconds := int32(duration / time.Second)
	l.Spec.HolderIdentity = &to
	l.Spec.RenewTime = &now
	l.Spec.LeaseDurationSeconds = &seconds
}

// holderOf is who holds a Lease; empty: nobody.
func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// released reports whether the holder of a Lease has released it. It leaves no
// time of acquisition then. That somebody else has removed the holder says nothing
// about whether it has stopped.
func released(l *coordinationv1.Lease) bool {
	return holderOf(l) == "" && l.Spec.AcquireTime == nil && l.Spec.RenewTime != nil
}

// holds reports whether a Lease is held by a candidate since an instant. The
// instant tells apart what should have had different identities.
func holds(l *coordinationv1.Lease, identity string, since *metav1.MicroTime) bool {
	return holderOf(l) == identity && l.Spec.AcquireTime != nil && l.Spec.AcquireTime.Time.Equal(since.Time)
}
