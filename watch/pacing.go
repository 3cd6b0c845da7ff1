package watch

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

const (
	// maxReadInterval is the longest time between two reads of a connection. At 500 Events a
	// second, a wake-up for each one costs more CPU than decoding and storing it.
	maxReadInterval = 500 * time.Millisecond

	// minReadInterval is the time below which reads do not wait.
	minReadInterval = 10 * time.Millisecond

	// readBytes is what should arrive in an interval. The kernel holds at least twice as much,
	// or the API server would wait for a connection that is never read at full speed.
	readBytes = 32 << 10
)

// pacing delays reads of the connections of a client while a watch is open, so that one read
// returns what several Events have written.
type pacing struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	watches atomic.Int32 // open
}

func (p *pacing) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: conn, pacing: p}, nil
}

// pacedConn is a connection that delays Read. Read is for one goroutine.
type pacedConn struct {
	net.Conn
	pacing *pacing

	began    time.Time     // of the current interval
	interval time.Duration // its length; 0: reads do not wait
	bytes    int           // read in it, most of which arrived in the interval before
	before   time.Duration // length of the interval before
	more     bool          // the last Read filled its buffer
}

func (c *pacedConn) Read(b []byte) (int, error) {
	if c.pacing.watches.Load() > 0 {
		c.wait()
	}
	n, err := c.Conn.Read(b)
	c.bytes += n
	c.more = n == len(b)
	return n, err
}

// wait waits for the end of the interval, unless there is more to read. The next one is as long
// as readBytes take at the last rate.
func (c *pacedConn) wait() {
	if rest := c.interval - time.Since(c.began); rest > 0 && !c.more {
		time.Sleep(rest)
	}
	elapsed := time.Since(c.began)
	if elapsed < max(c.interval, minReadInterval) {
		return
	}
	c.interval = maxReadInterval
	if next := c.before.Seconds() * readBytes / float64(max(c.bytes, 1)); next < maxReadInterval.Seconds() {
		c.interval = time.Duration(next * float64(time.Second))
	}
	if c.interval < minReadInterval {
		c.interval = 0
	}
	c.began, c.before, c.bytes = time.Now(), elapsed, 0
}
