package watch

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// serverClock is the API server's clock, read from the Date header of its answers. It
// is safe for concurrent use.
type serverClock struct {
	last atomic.Pointer[reading]
}

// reading is what a Date header said, and when by our clock.
type reading struct{ date, at time.Time }

// now returns the time by the API server's clock: at least that, and at most a second
// more than its Date header implies, which has no fractions. Without a Date header it
// is our own clock.
func (c *serverClock) now() time.Time {
	now := time.Now()
	last := c.last.Load()
	if last == nil {
		return now
	}
	// The monotonic clock stands still while a machine is suspended, the wall clock may
	// be set: the further of the two, so that no true time lies in the future.
	passed := max(now.Sub(last.at), now.Round(0).Sub(last.at.Round(0)))
	return last.date.Add(time.Second + passed)
}

type clockKey struct{}

// withClock makes the answers to requests under a context set the clock.
func withClock(ctx context.Context, c *serverClock) context.Context {
	return context.WithValue(ctx, clockKey{}, c)
}

// setClock sets the clock of a request's context.
func setClock(req *http.Request, resp *http.Response) {
	c, ok := req.Context().Value(clockKey{}).(*serverClock)
	if !ok {
		return
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.last.Store(&reading{date: date, at: time.Now()})
	}
}
