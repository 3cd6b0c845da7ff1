package lease

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// holder renews and releases the Lease. Only the goroutine of run uses it.
type holder struct {
	*Lease
	lease *coordinationv1.Lease // as last written

	stored   Checkpoint // of the last successful write that had another, at storedAt
	storedAt time.Time
	encoded  Checkpoint // of the present write
}

// errTakenOver means that no further renewal can succeed.
var errTakenOver = errors.New("another replica acquired it")

var errTooLate = errors.New("the renewal succeeded after the renew deadline")

// run calls lead, and renews the Lease until it returns.
func (h *holder) run(ctx context.Context, found Checkpoint, lead func(context.Context, Checkpoint) error) error {
	if ctx.Err() != nil { // during the last request
		return h.release()
	}
	leading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var leadErr error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		leadErr = lead(leading, found)
	}()

	if cause := h.renewUntil(ended); cause != nil {
		h.deadline.end()
		h.log.Error("lost the lease, sending nothing more", "lease", h.describe(), "err", cause)
		lost := fmt.Errorf("%w: %w", ErrLost, cause)
		cancel(lost)
		<-ended
		if errors.Is(leadErr, ErrLost) || errors.Is(leadErr, context.Canceled) {
			leadErr = nil // the same cause
		}
		return errors.Join(lost, leadErr)
	}
	return errors.Join(leadErr, h.release())
}

// renewUntil renews the Lease until ended is closed. It returns the cause if the Lease is lost.
func (h *holder) renewUntil(ended <-chan struct{}) error {
	timer := time.NewTimer(h.renewDelay(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-timer.C:
		}
		begun := time.Now()
		if _, lost := h.tryWrite(h.Identity); lost != nil {
			return lost
		}
		timer.Reset(h.renewDelay(begun))
	}
}

// release removes the holder from the Lease. It retries until the Lease is lost.
func (h *holder) release() error {
	defer h.deadline.end()
	for {
		begun := time.Now()
		done, lost := h.tryWrite("")
		switch {
		case lost != nil:
			return fmt.Errorf("%w before it was released: %w", ErrLost, lost)
		case done:
			h.log.Info("released the lease", "lease", h.describe())
			return nil
		}
		time.Sleep(h.renewDelay(begun))
	}
}

// renewDelay is the delay of the next attempt after one that began at the given time.
func (h *holder) renewDelay(begun time.Time) time.Duration {
	_, left := h.deadline.check()
	return max(0, min(h.RetryPeriod-time.Since(begun), left))
}

// tryWrite makes one attempt to write the Lease, with this replica as its holder or none. It
// reports whether the attempt succeeded; lost is an error after which no attempt can succeed.
func (h *holder) tryWrite(identity string) (done bool, lost error) {
	renewed, left := h.deadline.check()
	if left <= 0 {
		return false, h.overdue(renewed)
	}
	// Not the context of Run: after its end, the Lease is held until lead has returned.
	ctx, cancel := context.WithTimeoutCause(context.Background(), left, fmt.Errorf("%w before the renew deadline", errNoResponse))
	defer cancel()
	err := h.write(ctx, identity)
	if errors.Is(err, errTakenOver) {
		return false, err
	}
	h.recordResult(err)
	return err == nil, nil
}

// overdue returns the error of a missed renew deadline.
func (h *holder) overdue(renewed clockReading) error {
	err := fmt.Errorf("last renewed %v ago, at %s",
		h.deadline.now().since(renewed).Round(time.Millisecond), renewed.wall.UTC().Format(time.RFC3339))
	if last := h.health.last(); last != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return fmt.Errorf("%w: the process or its machine was suspended, or the clock was set", err)
}

// write writes the Lease. Writes and deletions by other clients are no failure while this replica
// is the holder; if another replica is, the error is errTakenOver.
func (h *holder) write(ctx context.Context, identity string) error {
	begun := h.deadline.now()
	var written *coordinationv1.Lease
	var err error
	h.encoded = h.stored
	if identity == h.Identity && !h.checkpointDue() {
		written, err = h.api.renew(ctx, h.lease, metav1.NowMicro())
	} else {
		written, err = h.api.update(ctx, h.renewedLease(h.lease, identity))
	}
	// An update has the uid, so that a deleted Lease is a conflict as well.
	if conflict(err) || apierrors.IsNotFound(err) {
		written, err = h.rewrite(ctx, identity)
	}
	if err != nil {
		return err
	}
	h.lease = written
	if !reflect.DeepEqual(h.encoded, h.stored) {
		h.stored, h.storedAt = h.encoded, time.Now()
	}
	if !h.deadline.renew(begun) {
		return errTooLate // the next attempt returns overdue
	}
	return nil
}

// checkpointDue reports whether the next renewal stores the checkpoint: if it has changed and was
// last stored a CheckpointInterval ago, or at once if not only positions have advanced.
func (h *holder) checkpointDue() bool {
	current := h.checkpoint.Load()
	if current == nil {
		return false
	}
	c := (*current)()
	if time.Since(h.storedAt) < h.CheckpointInterval && c.onlyAdvances(h.stored) {
		return false
	}
	return !reflect.DeepEqual(c, h.stored)
}

// rewrite writes the Lease after another client has written or deleted it.
func (h *holder) rewrite(ctx context.Context, identity string) (*coordinationv1.Lease, error) {
	found, err := h.api.get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		h.log.Warn("the lease was deleted, recreating it", "lease", h.describe())
		l := h.lease.DeepCopy()
		l.ObjectMeta = metav1.ObjectMeta{Namespace: h.Namespace, Name: h.Name, Labels: l.Labels, Annotations: l.Annotations}
		return h.api.create(ctx, h.renewedLease(l, identity))
	case err != nil:
		return nil, err
	case identity == "" && released(found):
		return found, nil // by a request whose response was lost
	case holderOf(found) == "" && !released(found):
		h.log.Warn("the holder of the lease was removed, restoring it", "lease", h.describe())
		found.Spec.AcquireTime = h.lease.Spec.AcquireTime
		if a, ok := h.lease.Annotations[annotation]; ok {
			metav1.SetMetaDataAnnotation(&found.ObjectMeta, annotation, a)
		}
		return h.api.update(ctx, h.renewedLease(found, identity))
	case !holds(found, h.Identity, h.lease.Spec.AcquireTime):
		return nil, fmt.Errorf("%w: its holder is now %q", errTakenOver, holderOf(found))
	default:
		return h.api.update(ctx, h.renewedLease(found, identity))
	}
}

// renewedLease returns the Lease with a new renew time and the current checkpoint.
func (h *holder) renewedLease(l *coordinationv1.Lease, identity string) *coordinationv1.Lease {
	l = l.DeepCopy()
	setHolder(l, identity, h.Duration)
	if identity == "" {
		l.Spec.AcquireTime = nil // see released
	}
	current := h.checkpoint.Load()
	if current == nil {
		return l
	}
	h.encoded = (*current)()
	a, err := encode(h.encoded)
	h.metrics.bytes.Set(float64(len(a)))
	if others := otherAnnotations(l); err == nil && others+len(annotation)+len(a) > maxAllBytes {
		err = fmt.Errorf("annotation %s is too large: it has %d bytes, other annotations of the Lease have %d, and %d are allowed in total: remove other annotations", annotation, len(a), others, maxAllBytes)
	}
	switch began, lasted := h.checkpointHealth.record(err); {
	case err != nil && began:
		h.log.Error("cannot store the checkpoint, keeping the previous one; a failover will resend more Events", "lease", h.describe(), "err", err)
	case err == nil && lasted > 0:
		h.log.Info("the checkpoint can be stored again", "lease", h.describe(), "after", lasted.Round(time.Second))
	}
	if err == nil {
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, annotation, a)
	}
	return l
}

// otherAnnotations is the size of the annotations of other clients, as the API server counts it.
func otherAnnotations(l *coordinationv1.Lease) (n int) {
	for key, value := range l.Annotations {
		if key != annotation {
			n += len(key) + len(value)
		}
	}
	return n
}

// setHolder sets the holder, the renew time and the duration of a Lease.
func setHolder(l *coordinationv1.Lease, identity string, duration time.Duration) {
	now := metav1.NewMicroTime(time.Now())
	seconds := int32(duration / time.Second)
	l.Spec.HolderIdentity = &identity
	l.Spec.RenewTime = &now
	l.Spec.LeaseDurationSeconds = &seconds
}

// holderOf returns the holder of a Lease, empty if it has none.
func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// released reports whether the holder has released the Lease: it then has no acquire time. If
// another client has removed the holder, that holder may still be the leader.
func released(l *coordinationv1.Lease) bool {
	return holderOf(l) == "" && l.Spec.AcquireTime == nil && l.Spec.RenewTime != nil
}

// holds reports whether a candidate holds the Lease that it acquired at the given time. The time
// tells processes with the same identity apart.
func holds(l *coordinationv1.Lease, identity string, acquiredAt *metav1.MicroTime) bool {
	return holderOf(l) == identity && l.Spec.AcquireTime != nil && l.Spec.AcquireTime.Time.Equal(acquiredAt.Time)
}
