package loki

import (
	"context"
	"errors"
	"net"
	"sync"
)

// connections are the open connections of one HTTP client. They can be closed during a request,
// which is the only way to end a token request of the round tripper for OAuth2: it has no
// deadline.
// https://github.com/prometheus/common/blob/v0.72.1/config/http_config.go (newOauth2TokenSource)
type connections struct {
	dialer dialFunc
	ctx    context.Context // canceled by close
	cancel context.CancelFunc

	mu   sync.Mutex // guards open
	open map[*connection]struct{}
}

func newConnections(dialer dialFunc) *connections {
	c := &connections{dialer: dialer, open: make(map[*connection]struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

type connection struct {
	net.Conn
	owner *connections
}

var errConnectionsClosed = errors.New("no response from the OAuth2 token server in time")

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	conn, err := c.dialer(ctx, network, address)
	if err != nil {
		return nil, err
	}
	wrapped := &connection{Conn: conn, owner: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		conn.Close()
		return nil, errConnectionsClosed
	}
	c.open[wrapped] = struct{}{}
	return wrapped, nil
}

// close closes all connections and prevents new ones.
func (c *connections) close() {
	c.mu.Lock()
	c.cancel()
	all := c.open
	c.open = nil
	c.mu.Unlock()
	for conn := range all {
		conn.Conn.Close()
	}
}

func (c *connection) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
