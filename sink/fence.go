package sink

import (
	"context"
	"errors"
	"time"
)

// Fence reports whether this replica is still the leader and may send. Unless until is
// the zero Time, requests must end by then. Several goroutines call it.
type Fence = func() (until time.Time, ok bool)

// ErrFenced is the error of BeginRequest after this replica has lost leadership.
var ErrFenced = errors.New("not the leader any more")

type fenceKey struct{}

// WithFence returns a context in which BeginRequest checks the fence, which may be nil.
func WithFence(ctx context.Context, fence Fence) context.Context {
	if fence == nil {
		return ctx
	}
	return context.WithValue(ctx, fenceKey{}, fence)
}

// BeginRequest checks the fence before a request and returns the context of the request,
// which ends before another replica may send. After an error, the request must not be
// made.
func BeginRequest(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return ctx, func() {}, err
	}
	fence, _ := ctx.Value(fenceKey{}).(Fence)
	if fence == nil {
		return ctx, func() {}, nil
	}
	until, ok := fence()
	switch {
	case !ok:
		return ctx, func() {}, ErrFenced
	case until.IsZero():
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	return ctx, cancel, nil
}
