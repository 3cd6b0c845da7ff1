//go:build e2e

package chaos

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// mode is the behaviour of a proxy.
type mode string

const (
	passes  mode = "passes"
	refuses mode = "refuses" // nothing listens, and open connections are closed
	resets  mode = "resets"  // new and open connections are reset
	hangs   mode = "hangs"   // connections are accepted and stay open, and transfer nothing until the mode is passes
)

// proxy is a TCP proxy in front of a server. Its address stays the same.
type proxy struct {
	address string
	target  string
	all     sync.WaitGroup // every goroutine

	mu       sync.Mutex // guards the rest
	mode     mode
	changed  chan struct{} // closed when the mode changes
	listener net.Listener  // nil while it refuses
	open     map[net.Conn]bool
}

// newProxy starts a proxy on a loopback port; it ends with the test.
func newProxy(t *testing.T, port int, target string) *proxy {
	t.Helper()
	p := &proxy{
		address: fmt.Sprintf("127.0.0.1:%d", port), target: strings.TrimPrefix(target, "https://"),
		mode: refuses, changed: make(chan struct{}), open: map[net.Conn]bool{},
	}
	if err := p.set(passes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.set(refuses) // closing does not fail
		p.all.Wait()
	})
	return p
}

// set changes the mode.
func (p *proxy) set(m mode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
	switch m {
	case refuses:
		if p.listener != nil {
			p.listener.Close()
			p.listener = nil
		}
		p.closeAll()
	case resets:
		p.closeAll()
	}
	if m == refuses || p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		return fmt.Errorf("listen again: %w", err)
	}
	p.listener = l
	p.all.Go(func() { p.accept(l) })
	return nil
}

// closeAll closes open connections, with a reset in the mode resets. p.mu is held.
func (p *proxy) closeAll() {
	for c := range p.open {
		p.end(c)
	}
	clear(p.open)
}

// end closes a connection. p.mu is held.
func (p *proxy) end(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok && p.mode == resets {
		_ = tcp.SetLinger(0) // of a connection that may be closed already
	}
	c.Close()
}

func (p *proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		p.all.Go(func() { p.serve(c) })
	}
}

// serve forwards a connection.
func (p *proxy) serve(from net.Conn) {
	if !p.add(from) || !p.wait() {
		return
	}
	to, err := net.Dial("tcp", p.target)
	if err != nil {
		p.drop(from)
		return
	}
	if !p.add(to) {
		p.drop(from)
		return
	}
	p.all.Go(func() { p.pump(from, to) })
	p.pump(to, from)
}

// pump copies from one side to the other until either is closed.
func (p *proxy) pump(from, to net.Conn) {
	defer p.drop(from, to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.wait() {
			return
		}
		if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// add registers an open connection, or closes it if the mode does not allow one.
func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == refuses || p.mode == resets {
		p.end(c)
		return false
	}
	p.open[c] = true
	return true
}

// drop closes connections.
func (p *proxy) drop(all ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range all {
		p.end(c)
		delete(p.open, c)
	}
}

// wait waits while the mode is hangs, and reports whether it is passes then.
func (p *proxy) wait() bool {
	for {
		p.mu.Lock()
		m, changed := p.mode, p.changed
		p.mu.Unlock()
		if m != hangs {
			return m == passes
		}
		<-changed
	}
}
