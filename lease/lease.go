// Package lease elects the active replica and hands over its checkpoint: a Lease
// (coordination.k8s.io/v1) that its holder renews, with an annotation that has the position of each
// sink.
//
// The election works as in client-go's tools/leaderelection: a candidate acquires a Lease that it
// has not seen renewed for its duration, measured by the candidate's own clock, so that clocks need
// not agree; each write is a compare-and-swap. Three properties go beyond that library:
//
//   - The Lease has the checkpoint, which therefore needs no requests of its own. A new leader reads
//     it from the version of the Lease that it acquired. Renewals store it if it has changed, and
//     positions that have only advanced at most every CheckpointInterval; the release stores it
//     always.
//   - The holder keeps the Lease during its drain, and releases it afterwards.
//   - Valid depends on the clock alone: a process that was suspended sends nothing after it wakes
//     up.
//
// These change the inside of that library's loop. Besides, importing it registers every kind of the
// Kubernetes API: a waiting candidate peaks at 12 MB of memory with this package and at 22 MB with
// the library, and the program would be 22 MB larger.
//
// The Lease does not fence the destination: a request sent before it was lost may arrive
// afterwards. Its records are byte-identical to those that the next leader sends.
//
// Required permissions: get, create, update and patch of leases in the namespace of the Lease.
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
	Kubernetes *rest.Config

	Namespace, Name string // of the Lease

	// Identity of this candidate. It must be unique among processes, also among those that run one
	// after the other in a pod.
	Identity string

	// Duration is how long candidates wait for a renewal before they acquire the Lease, in whole
	// seconds. The holder stops by itself after RenewDeadline without a renewal, which must be
	// shorter. RetryPeriod is the interval of renewals and of a candidate's attempts.
	Duration, RenewDeadline, RetryPeriod time.Duration

	// CheckpointInterval is the shortest time between two renewals that store a checkpoint which
	// differs in nothing but positions that have advanced; 0: none.
	CheckpointInterval time.Duration

	Logger     *slog.Logger          // nil: no logs
	Registerer prometheus.Registerer // nil: no metrics
}

// ErrLost is the cancellation cause of the leader's context once leadership is lost, and the error
// of Run.
var ErrLost = errors.New("lease lost")

// Lease is a candidate for the Lease and later its holder. Its methods are safe for concurrent use.
type Lease struct {
	Options
	api              *client
	log              *slog.Logger
	metrics          *metrics
	health           health
	checkpointHealth checkpointHealth
	deadline         leaseDeadline
	checkpoint       atomic.Pointer[func() Checkpoint]
}

// New returns a candidate. It sends no request.
func New(o Options) (*Lease, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	api, err := newClient(o)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	l := &Lease{Options: o, api: api, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler))}
	l.deadline = leaseDeadline{renewDeadline: o.RenewDeadline, now: readClock}
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

// SetCheckpoint makes the following renewals store the checkpoint that the function returns; see
// Options.CheckpointInterval. Before the first call, renewals keep the checkpoint of the previous
// leader. The function is called from another goroutine until Run returns, and must not block.
func (l *Lease) SetCheckpoint(current func() Checkpoint) { l.checkpoint.Store(&current) }

// Valid reports whether this replica may begin a request, and returns the time by which the request
// must end, because another replica may lead from then on. It is valid for RenewDeadline after the
// start of the last successful renewal, by the monotonic and by the wall clock: the former stops
// while a machine is suspended. Once it is invalid, it stays invalid.
func (l *Lease) Valid() (until time.Time, ok bool) {
	_, left := l.deadline.check()
	if left <= 0 {
		return time.Time{}, false
	}
	return time.Now().Add(left + l.Duration - l.RenewDeadline), true
}

// Leading reports whether this replica is the leader.
func (l *Lease) Leading() bool {
	_, ok := l.Valid()
	return ok
}

// Ready returns an error if this replica could not acquire the Lease, or if the next leader could
// not resume from its checkpoint. A missing permission and a checkpoint that is too large are
// reported at once, other failures of requests after five minutes.
func (l *Lease) Ready() error {
	if err := l.health.ready(); err != nil || !l.Leading() {
		return err
	}
	return l.checkpointHealth.ready()
}

// describe names the Lease as kubectl does.
func (l *Lease) describe() string { return l.Namespace + "/" + l.Name }

// Run waits until this replica holds the Lease, calls lead with the checkpoint of the previous
// leader, and returns after lead has; it returns nil if ctx ends before. The context of lead ends
// with ctx, or with the cause ErrLost when the Lease is lost; lead must then return without sending
// anything. If ctx has ended, the Lease is renewed until lead returns, and then released.
//
// Run returns the error of lead, or ErrLost with the cause. ErrLost may mean that the Lease could not
// be released: the next leader then waits for its duration, and resends the records accepted since
// the checkpoint was last stored.
//
// Run must be called once.
func (l *Lease) Run(ctx context.Context, lead func(ctx context.Context, found Checkpoint) error) error {
	acquired, found := l.acquire(ctx)
	if acquired == nil {
		return nil // ctx ended
	}
	h := &holder{Lease: l, lease: acquired}
	return h.run(ctx, found, lead)
}
