package lease

import (
	"context"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/internal/excerpt"
	"github.com/hindsight-events/hindsight/internal/wait"
)

// candidate waits for the Lease and acquires it.
type candidate struct {
	*Lease

	// seen is the Lease as last read, nil before. renewedAt is when a renewal was last noticed, by the
	// monotonic clock: setting the wall clock forward must not make a holder look dead.
	seen      *coordinationv1.Lease
	renewedAt time.Time

	checkpoint string // the annotation as last read

	acquiredAt metav1.MicroTime // of the last attempt
}

// acquire waits for the Lease, and returns it and its checkpoint; nil if ctx ended before.
func (l *Lease) acquire(ctx context.Context) (*coordinationv1.Lease, Checkpoint) {
	c := &candidate{Lease: l}
	l.log.Info("waiting for the lease", "lease", l.describe(), "identity", l.Identity)
	for {
		begun, acquired, err := c.tryAcquire(ctx)
		if acquired != nil {
			l.deadline.start(begun)
			l.recordResult(nil)
			return acquired, c.onAcquired(acquired)
		}
		if ctx.Err() != nil {
			return nil, Checkpoint{}
		}
		l.recordResult(err)
		if wait.Sleep(ctx, c.retryDelay()) != nil {
			return nil, Checkpoint{}
		}
	}
}

// retryDelay is a retry period with jitter, or the time until the Lease expires if that is shorter.
func (c *candidate) retryDelay() time.Duration {
	delay := c.RetryPeriod + rand.N(c.RetryPeriod/5+1)
	if remaining := c.remaining(); remaining > 0 {
		delay = min(delay, remaining)
	}
	return delay
}

// remaining is how long another replica may still be the leader. A Lease without a holder that was
// not released was changed, or deleted and recreated, by another client: its last holder may have
// renewed it until then, and if it is alive it takes the Lease back within that time.
func (c *candidate) remaining() time.Duration {
	if c.seen == nil || released(c.seen) {
		return 0
	}
	duration := c.Duration
	if s := c.seen.Spec.LeaseDurationSeconds; s != nil {
		duration = max(duration, time.Duration(*s)*time.Second)
	}
	return duration - time.Since(c.renewedAt)
}

// tryAcquire reads the Lease and acquires it if it has expired. It returns nil if not.
func (c *candidate) tryAcquire(ctx context.Context) (begun clockReading, acquired *coordinationv1.Lease, err error) {
	found, err := c.api.get(ctx)
	// A write that is cancelled may succeed, and would leave a Lease that no replica releases.
	ctx = context.WithoutCancel(ctx)
	switch {
	case apierrors.IsNotFound(err):
		if c.seen != nil {
			return begun, nil, c.recreate(ctx)
		}
		begun = c.deadline.now()
		acquired, err = c.api.create(ctx, c.acquireUpdate(c.newLease()))
	case err != nil:
		return begun, nil, err
	default:
		if c.observe(found); !c.alreadyOurs(found) && c.remaining() > 0 {
			return begun, nil, nil
		}
		begun = c.deadline.now()
		acquired, err = c.api.update(ctx, c.acquireUpdate(found))
	}
	if conflict(err) {
		return begun, nil, nil // another candidate was faster
	}
	return begun, acquired, err
}

// observe notes the state of the Lease and whether it was renewed since the last call. Only a
// change of the spec is a renewal: other clients may change labels and annotations.
func (c *candidate) observe(l *coordinationv1.Lease) {
	if c.seen == nil || c.seen.UID != l.UID || !equality.Semantic.DeepEqual(c.seen.Spec, l.Spec) {
		c.renewedAt = time.Now()
	}
	if by := holderOf(l); by != "" && by != c.Identity && (c.seen == nil || holderOf(c.seen) != by) {
		c.log.Info("another replica leads", "lease", c.describe(), "holder", by)
	}
	c.seen = l
	if a := l.Annotations[annotation]; a != "" {
		c.checkpoint = a
	}
}

// alreadyOurs reports whether the last attempt succeeded and its response was lost.
func (c *candidate) alreadyOurs(l *coordinationv1.Lease) bool {
	return holds(l, c.Identity, &c.acquiredAt)
}

// newLease returns a Lease without a holder.
func (c *candidate) newLease() *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
	c.restoreCheckpoint(l)
	return l
}

// restoreCheckpoint gives a Lease that was recreated without a checkpoint the one last seen. It is
// not ahead of the last holder's, so that a leader which resumes from it loses nothing.
func (c *candidate) restoreCheckpoint(l *coordinationv1.Lease) {
	if _, ok := l.Annotations[annotation]; !ok && c.checkpoint != "" {
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, annotation, c.checkpoint)
	}
}

// recreate creates a deleted Lease without a holder. A live holder takes it back. Waiting for the
// duration alone would not be safe: the Lease may have been renewed, or recreated and deleted
// again, since it was last read.
func (c *candidate) recreate(ctx context.Context) error {
	created, err := c.api.create(ctx, c.newLease())
	switch {
	case conflict(err):
		return nil // its holder was faster
	case err != nil:
		return err
	}
	c.log.Warn("the lease was deleted; recreated it for its holder to take back", "lease", c.describe(), "holder", holderOf(c.seen))
	c.observe(created)
	return nil
}

// acquireUpdate returns the Lease with this candidate as its holder. It keeps all annotations.
func (c *candidate) acquireUpdate(l *coordinationv1.Lease) *coordinationv1.Lease {
	l = l.DeepCopy()
	c.restoreCheckpoint(l)
	// In microseconds, as the API server stores it: alreadyOurs compares it.
	now := metav1.NewMicroTime(time.Now().Truncate(time.Microsecond))
	c.acquiredAt = now
	transitions := int32(0)
	if l.Spec.LeaseTransitions != nil {
		transitions = *l.Spec.LeaseTransitions + 1
	}
	l.Spec.LeaseTransitions = &transitions
	l.Spec.AcquireTime = &now
	setHolder(l, c.Identity, c.Duration)
	return l
}

// onAcquired logs the previous holder and returns the checkpoint.
func (c *candidate) onAcquired(acquired *coordinationv1.Lease) Checkpoint {
	log := c.log.With("lease", c.describe())
	switch notRenewedFor := time.Since(c.renewedAt).Round(time.Millisecond); {
	case c.seen == nil:
		log = log.With("previous", "none")
	case released(c.seen):
		log = log.With("previous", "released")
	case holderOf(c.seen) == "":
		log = log.With("previous", "no holder", "not_renewed_for", notRenewedFor)
	default:
		log = log.With("previous", holderOf(c.seen), "not_renewed_for", notRenewedFor)
	}
	a := acquired.Annotations[annotation]
	found, err := decode(a)
	if err != nil {
		// A part of a checkpoint is not used: a sink that lacks a position beside others with one
		// would look like a new sink and start at the latest position.
		log.Warn("acquired the lease, but cannot read its checkpoint; all Events that the API server has are sent again, except those that the journal has acknowledged",
			"err", err, "annotation", excerpt.Of(a, 1<<10))
		return Checkpoint{}
	}
	log.Info("acquired the lease", "positions", found.String(), "gaps", len(found.Gaps))
	return found
}

// recordResult notes the result of a request. It logs the first failure in a row, and the recovery.
func (l *Lease) recordResult(err error) {
	if err == nil {
		if failures, since := l.health.succeeded(); failures > 0 {
			l.log.Info("requests for the lease succeed again", "after", time.Since(since).Round(time.Millisecond), "failed_attempts", failures)
		}
		return
	}
	l.metrics.failures.Inc()
	failures, last := l.health.failed(err)
	args := []any{"failures", failures, "err", err}
	if denied(err) {
		args = append(args, "hint", l.api.hint(err))
	}
	if failures == 1 || denied(err) && !denied(last) {
		l.log.Warn("request for the lease failed, retrying", args...)
	} else {
		l.log.Debug("request for the lease failed again", args...)
	}
}
