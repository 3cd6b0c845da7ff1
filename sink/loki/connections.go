package loki

import (
	"context"
	"errors"
	"net"
	"sync"
)

// connections are those that one HTTP client has opened. They can be closed while
// they are used, which nothing else can do for the token requests of the round
// tripper for OAuth2: those have no deadline.
// https://github.com/prometheus/common/blob/v0.72.1/config/http_config.go (newOauth2TokenSource)
type connections struct {
	dialer dialFunc
	ended  context.Context // by close
	end    context.CancelFunc

	mu   sync.Mutex // guards open
	open map[*connection]struct{}
}

func newConnections(dialer dialFunc) *connections {
	c := &connections{dialer: dialer, open: make(map[*connection]struct{})}
	c.ended, c.end = context.WithCancel(context.Background())
	return c
}

type connection struct {
	net.Conn
	of *connections
}

var errConnectionsClosed = errors.New("the server for OAuth2 tokens did not answer in time")

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	conn, err := c.dialer(ctx, network, address)
	if err != nil {
		return nil, err
	}
	mine := &connection{Conn: conn, of: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Err() != nil {
		conn.Close() // nobody has used it
		return nil, errConnectionsClosed
	}
	c.open[mine] = struct{}{}
	return mine, nil
}

// close closes all of them, and lets none be opened any more.
func (c *connections) close() {
	c.mu.Lock()
	c.end()
	all := c.open
	c.open = nil
	c.mu.Unlock()
	for conn := range all {
		conn.Conn.Close() // whoever uses it finds out
	}
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
