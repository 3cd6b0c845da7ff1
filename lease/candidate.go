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

// candidate is a campaign: what is known of the Lease while another holds it.
type candidate struct {
	*Lease

	// seen is the Lease as last read, nil before that; renewal is when its
	// holder's last renewal came to be known, by the monotonic clock: a wall clock
	// that is set forward must not make anybody look dead.
	seen      *coordinationv1.Lease
	renewedAt time.Time

	checkpoint string // the annotation as last read; empty: there was none

	acquiredAt metav1.MicroTime // of our last attempt to take it over
}

// acquire returns the Lease and what it holds once it is ours; nil if ctx ended
// before.
func (l *Lease) acquire(ctx context.Context) (*coordinationv1.Lease, Checkpoint) {
	c := &candidate{Lease: l}
	l.log.Info("waiting to lead", "lease", l.describe(), "identity", l.Identity)
	for {
		begun, mine, err := c.attempt(ctx)
		if mine != nil {
			l.deadline.begin(begun)
			l.report(ctx, nil)
			return mine, c.onAcquired(mine)
		}
		if ctx.Err() != nil {
			return nil, Checkpoint{}
		}
		l.report(ctx, err)
		if wait.Sleep(ctx, c.pause()) != nil {
			return nil, Checkpoint{}
		}
	}
}

// pause is until the next attempt: a retry period, or less if the Lease may be
// taken over before.
func (c *candidate) pause() time.Duration {
	pause := c.RetryPeriod + rand.N(c.RetryPeriod/5+1) // spreads the candidates' attempts
	if left := c.remaining(); left > 0 {
		pause = min(pause, left)
	}
	return pause
}

// remaining is how long the Lease may still belong to a holder, as far as is known.
// One without a holder that was not released was emptied, or deleted and made
// again, by somebody else: its last holder may act for as long as if it had
// renewed it then. If it is alive, it takes the Lease back meanwhile.
func (c *candidate) remaining() time.Duration {
	if c.seen == nil || released(c.seen) {
		return 0
	}
	lasts := c.Duration
	if s := c.seen.Spec.LeaseDurationSeconds; s != nil {
		lasts = max(lasts, time.Duration(*s)*time.Second)
	}
	return lasts - time.Since(c.renewedAt)
}

// attempt looks at the Lease and takes it over if it may be. It returns nil if
// it may not.
func (c *candidate) attempt(ctx context.Context) (begun clockReading, mine *coordinationv1.Lease, err error) {
	found, err := c.api.get(ctx)
	// The end of ctx must not leave us with a Lease that we do not know of, which
	// nobody would release.
	ctx = context.WithoutCancel(ctx)
	switch {
	case apierrors.IsNotFound(err):
		if c.seen != nil {
			return begun, nil, c.recreate(ctx)
		}
		begun = c.deadline.now()
		mine, err = c.api.create(ctx, c.acquireUpdate(c.newLease()))
	case err != nil:
		return begun, nil, err
	default:
		if c.observe(found); !c.alreadyOurs(found) && c.remaining() > 0 {
			return begun, nil, nil
		}
		begun = c.deadline.now()
		mine, err = c.api.update(ctx, c.acquireUpdate(found))
	}
	if conflict(err) {
		return begun, nil, nil // another was faster
	}
	return begun, mine, err
}

// observe notes what the Lease is, and whether it was renewed since it was last
// looked at. Its spec says so; somebody else's labels and annotations do not.
func (c *candidate) observe(l *coordinationv1.Lease) {
	if c.seen == nil || c.seen.UID != l.UID || !equality.Semantic.DeepEqual(c.seen.Spec, l.Spec) {
		c.renewedAt = time.Now()
	}
	if by := holderOf(l); by != "" && by != c.Identity && (c.seen == nil || holderOf(c.seen) != by) {
		c.log.Info("another replica leads", "lease", c.describe(), "holder", by)
	}
	c.seen = l
	if said := l.Annotations[annotation]; said != "" {
		c.checkpoint = said
	}
}

// alreadyOurs reports whether we took the Lease over and did not get the answer.
func (c *candidate) alreadyOurs(l *coordinationv1.Lease) bool {
	return holds(l, c.Identity, &c.acquiredAt)
}

// newLease is the Lease where there is none, without a holder.
func (c *candidate) newLease() *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
	c.restoreCheckpoint(l)
	return l
}

// restoreCheckpoint gives a Lease that has no positions those that it had last before our
// eyes: somebody else has made it again. They are not ahead of the last holder's,
// so nothing is lost by them.
func (c *candidate) restoreCheckpoint(l *coordinationv1.Lease) {
	if _, ok := l.Annotations[annotation]; !ok && c.checkpoint != "" {
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, annotation, c.checkpoint)
	}
}

// recreate makes a Lease again that was deleted before our eyes, without a holder.
// Whether the last holder is alive shows in whether it takes this one. To wait for
// its time alone would not do: the Lease may have been renewed, or made again and
// deleted, since we looked at it last.
func (c *candidate) recreate(ctx context.Context) error {
	made, err := c.api.create(ctx, c.newLease())
	switch {
	case conflict(err):
		return nil // its holder was faster
	case err != nil:
		return err
	}
	c.log.Warn("the lease was deleted; it was made again for its holder, and is taken over if that does not renew it", "lease", c.describe(), "holder", holderOf(c.seen))
	c.observe(made)
	return nil
}

// acquireUpdate returns the Lease as it is to be with us as its holder. Its annotations
// stay.
func (c *candidate) acquireUpdate(l *coordinationv1.Lease) *coordinationv1.Lease {
	l = l.DeepCopy()
	c.restoreCheckpoint(l)
	// In microseconds, as it is kept: it is compared with what comes back.
	now := metav1.NewMicroTime(time.Now().Truncate(time.Microsecond))
	c.acquiredAt = now
	transitions := int32(0)
	if l.Spec.LeaseTransitions != nil {
		transitions = *l.Spec.LeaseTransitions + 1
	}
	l.Spec.LeaseTransitions = &transitions
	l.Spec.AcquireTime = &now
	renew(l, c.Identity, c.Duration)
	return l
}

// onAcquired returns what the Lease holds, and says from whom it was taken and how
// far the sinks are.
func (c *candidate) onAcquired(mine *coordinationv1.Lease) Checkpoint {
	args := []any{"lease", c.describe()}
	switch {
	case c.seen == nil:
		args = append(args, "from", "nobody: there was no lease")
	case released(c.seen):
		args = append(args, "from", "nobody: it was released")
	case holderOf(c.seen) == "":
		args = append(args, "from", "nobody: it had no holder", "for", time.Since(c.renewedAt).Round(time.Millisecond))
	default:
		args = append(args, "from", holderOf(c.seen), "not_renewed_for", time.Since(c.renewedAt).Round(time.Millisecond))
	}
	said := mine.Annotations[annotation]
	held, err := decode(said)
	if err != nil {
		// What cannot be understood as a whole is not used in part: a sink without
		// a position beside others that have one passes for new, and starts at the
		// end.
		c.log.Warn("took over the lease, but cannot use the positions in it: all that the API server holds comes again, except what the journal knows",
			append(args, "err", err, "annotation", excerpt.Of(said, 1<<10))...)
		return Checkpoint{}
	}
	c.log.Info("took over the lease", append(args, "positions", held.String(), "gaps", len(held.Gaps))...)
	return held
}

// report logs the first failure in a row, and the recovery.
func (l *Lease) report(ctx context.Context, err error) {
	if err == nil {
		if failures, since := l.health.worked(); failures > 0 {
			l.log.Info("the lease can be used again", "after", time.Since(since).Round(time.Millisecond), "failed_attempts", failures)
		}
		return
	}
	l.metrics.failures.Inc()
	failures, last := l.health.failed(err)
	args := []any{"failures", failures, "err", err}
	if denied(err) {
		args = append(args, "mend", l.api.mend(err))
	}
	if failures == 1 || denied(err) && !denied(last) {
		l.log.Warn("using the lease failed, will be repeated", args...)
	} else {
		l.log.Debug("using the lease failed again", args...)
	}
}
