package watch

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// serverClock is the API server's clock, read from the Date header of its responses. It is safe
// for concurrent use.
type serverClock struct {
	last atomic.Pointer[clockReading]
}

// clockReading is a Date header, and the local time at which it was read.
type clockReading struct{ date, at time.Time }

// now returns the API server's time, never too early. It is up to a second too late, because a
// Date header has no fractions of a second. Before the first Date header it returns local time.
func (c *serverClock) now() time.Time {
	now := time.Now()
	last := c.last.Load()
	if last == nil {
		return now
	}
	// The monotonic clock stops while a machine is suspended, and the wall clock may be set.
	// The greater difference ensures that no true time is after the result.
	passed := max(now.Sub(last.at), now.Round(0).Sub(last.at.Round(0)))
	return last.date.Add(time.Second + passed)
}

type clockKey struct{}

// withClock returns a context for requests. Their responses set the clock.
func withClock(ctx context.Context, c *serverClock) context.Context {
	return context.WithValue(ctx, clockKey{}, c)
}

// setClock sets the clock in the request's context, if any, from a response.
func setClock(req *http.Request, resp *http.Response) {
	c, ok := req.Context().Value(clockKey{}).(*serverClock)
	if !ok {
		return
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.last.Store(&clockReading{date: date, at: time.Now()})
	}
}
