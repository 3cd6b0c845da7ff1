// Package lease elects which replica is active, and hands what it knows to the
// next: a Lease (coordination.k8s.io/v1) that its holder renews, and whose
// annotation says how far each sink has been taken.
//
// The election is the one of client-go's tools/leaderelection: a candidate takes
// a Lease over when it has not seen it renewed for as long as its holder asked
// for, by its own clock, so that clocks need not agree; and every write is a
// compare-and-swap. What is added is what that library leaves to its users:
//
//   - The positions are written with each renewal, so they cost no request of
//     their own, and read from the very state of the Lease that was taken over.
//   - The Lease is kept while the work ends, and released after that.
//   - Valid says by the clock alone whether this replica may still act, so that
//     a process that was stopped for a while sends nothing when it goes on.
//
// It is written here because all of these lie inside of that library's loop,
// and because importing it registers every kind of the Kubernetes API: a
// candidate that does nothing but wait peaks at 12 MB of memory with this
// package's client and at 22 MB with the library, and the program would be 22
// MB larger.
//
// This is no fence: what was sent before the Lease ended may arrive after that.
// It is byte-identical to what the next leader sends.
//
// Permissions needed: get, create and update of leases in the Lease's namespace.
package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
)

// Options of New.
type Options struct {
	Kubernetes *rest.Config // where the API server is, and who asks

	Namespace, Name string // of the Lease

	// Identity of this candidate. No two may have the same at a time, also not
	// two processes one after the other in the same pod.
	Identity string

	// Duration is how long the others wait for a renewal before they take the
	// Lease over, in whole seconds. RenewDeadline is after how long without a
	// renewal this replica stops by itself; it has to be the shorter.
	// RetryPeriod is how often the Lease is renewed, or looked at.
	Duration, RenewDeadline, RetryPeriod time.Duration

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: no metrics
}

// ErrLost is the cause of the end of the context of whoever leads when it does
// not lead any more, and what Run then returns.
var ErrLost = errors.New("the lease is lost")

// Lease is a candidate and, in its turn, the holder of the Lease. Its methods
// are safe for concurrent use.
type Lease struct {
	Options
	api        *client
	log        *slog.Logger
	metrics    *metrics
	health     health
	unsaved    unsaved
	deadline   leaseDeadline
	checkpoint atomic.Pointer[func() Checkpoint]
}

// New prepares to campaign; nothing is asked of the API server yet.
func New(o Options) (*Lease, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	api, err := newClient(o)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	l := &Lease{Options: o, api: api, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}
	l.deadline = leaseDeadline{after: o.RenewDeadline, now: now}
	l.metrics = newMetrics(o.Registerer, l)
	return l, nil
}

func (o *Options) check() error {
	for _, s := range []struct{ name, value string }{
		{"namespace", o.Namespace}, {"name", o.Name}, {"identity", o.Identity},
	} {
		if s.value == "" {
			return fmt.Errorf("the %s is missing", s.name)
		}
	}
	switch {
	case o.RetryPeriod <= 0:
		return fmt.Errorf("the retry period %v is not positive", o.RetryPeriod)
	case o.RenewDeadline < 2*o.RetryPeriod:
		return fmt.Errorf("the renew deadline %v is shorter than two retry periods of %v", o.RenewDeadline, o.RetryPeriod)
	case o.Duration <= o.RenewDeadline:
		return fmt.Errorf("the duration %v is not longer than the renew deadline %v", o.Duration, o.RenewDeadline)
	case o.Duration%time.Second != 0:
		return fmt.Errorf("the duration %v is not in whole seconds", o.Duration)
	}
	return nil
}

// SetCheckpoint makes the Lease say, from its next renewal on, what held returns then.
// Until it is called the Lease says what it said when it was taken over, so that
// nothing is forgotten while whoever leads gets ready. held is called from
// another goroutine until Run returns, and has to return at once.
func (l *Lease) SetCheckpoint(held func() Checkpoint) { l.checkpoint.Store(&held) }

// Valid reports whether this replica may begin something, and until when that
// has to be over, because from then on another one may lead. It may while less
// than RenewDeadline has passed since the last successful renewal was begun, by
// the monotonic or by the wall clock, whichever went further: the former stands
// still while a machine is suspended. Once it may not it never may again.
func (l *Lease) Valid() (until time.Time, ok bool) {
	_, left := l.deadline.check()
	if left <= 0 {
		return time.Time{}, false
	}
	return time.Now().Add(left + l.Duration - l.RenewDeadline), true
}

// Leading reports whether this replica holds the Lease and may act.
func (l *Lease) Leading() bool {
	_, ok := l.Valid()
	return ok
}

// Ready returns nil, or why this replica could not take its turn, or why the next
// one could not go on from where this one is: at once if permission is missing or
// if the positions do not fit into the Lease, and if the API server cannot be used
// for any other reason, after five minutes.
func (l *Lease) Ready() error {
	if err := l.health.ready(); err != nil || !l.Leading() {
		return err
	}
	return l.unsaved.ready()
}

// describe names the Lease as kubectl does.
func (l *Lease) describe() string { return l.Namespace + "/" + l.Name }

// Run campaigns until this replica leads, calls lead with what the Lease held,
// and returns after lead has; nil if ctx ended before. The context of lead ends
// with ctx, or, with the cause ErrLost, when the Lease is lost; then lead has to
// return without acting. While lead ends because ctx did, the Lease goes on to
// be renewed. After lead returned the Lease is written once more and released.
//
// An error is that of lead, or says that the Lease was lost (ErrLost), when and
// why. That may be so because it could not be released: then the next leader has
// to wait for it, and repeats what was accepted since the last renewal.
//
// Run is called once.
func (l *Lease) Run(ctx context.Context, lead func(ctx context.Context, held Checkpoint) error) error {
	mine, held := l.acquire(ctx)
	if mine == nil {
		return nil // ctx ended
	}
	t := &holder{Lease: l, lease: mine}
	return t.run(ctx, held, lead)
}
