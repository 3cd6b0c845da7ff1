package sink

import (
	"context"
	"errors"
	"time"
)

// Permit reports whether something may be sent now and, unless it may take forever,
// until when that must be over. It is called by several goroutines.
type Permit = func() (until time.Time, ok bool)

// errPermitRefused is why a request may not begin.
var errPermitRefused = errors.New("sending is not permitted any more")

type permitKey struct{}

// withPermit returns a context in which Begin asks permit, which may be nil.
func withPermit(ctx context.Context, permit Permit) context.Context {
	if permit == nil {
		return ctx
	}
	return context.WithValue(ctx, permitKey{}, permit)
}

// Begin is called before each request of a Send. It asks whether the request may be
// made, and returns its context, which ends when it must be over: before another
// replica may send. An error means that it may not be made.
func Begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return ctx, func() {}, err
	}
	permit, _ := ctx.Value(permitKey{}).(Permit)
	if permit == nil {
		return ctx, func() {}, nil
	}
	until, ok := permit()
	switch {
	case !ok:
		return ctx, func() {}, errPermitRefused
	case until.IsZero():
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	return ctx, cancel, nil
}
