package watch

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

const (
	// readInterval is the time between two reads of a connection that brings little. At 500
	// Events a second, a wake-up for each one costs more CPU than decoding and storing it.
	readInterval = 200 * time.Millisecond

	// littleBytes are the bytes in a readInterval up to which a connection brings little.
	littleBytes = 256 << 10
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

	began  time.Time // of the current interval
	bytes  int       // read in it
	before int       // bytes read in the interval before
	more   bool      // the last Read filled its buffer
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

func (c *pacedConn) wait() {
	rest := readInterval - time.Since(c.began)
	if rest > 0 && !c.more && c.bytes <= littleBytes && c.before <= littleBytes {
		time.Sleep(rest)
		rest = 0
	}
	if rest <= 0 {
		c.began, c.before, c.bytes = time.Now(), c.bytes, 0
	}
}
