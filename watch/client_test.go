package watch

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

// overHTTP2 returns a client that uses HTTP/2, as with a real API server: one connection for all
// requests. While stuck reports true for the number of a connection, requests over it are not
// answered, but pings are.
func overHTTP2(a *api, listener *pipes, stuck func(conn int32) bool) *rest.RESTClient {
	type connKey struct{}
	var conns atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			a.t.Errorf("request with %s", r.Proto)
		}
		conn := r.Context().Value(connKey{}).(int32)
		if stuck(conn) {
			<-r.Context().Done()
			return
		}
		r.Header.Set("Conn", strconv.Itoa(int(conn)))
		a.ServeHTTP(w, r)
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conns.Add(1))
	}
	server.StartTLS()
	a.t.Cleanup(server.Close)
	client, err := NewClient(&rest.Config{
		Host: "https://example.com",
		TLSClientConfig: rest.TLSClientConfig{
			CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		},
		Dial: listener.dial,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return client
}

// pipes is a listener with connections in memory.
type pipes struct {
	conns   chan net.Conn
	closed  chan struct{}
	closing sync.Once
	deaf    atomic.Bool // accept connections and read from them, without answering
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.closing.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	if p.deaf.Load() {
		go func() { _, _ = io.Copy(io.Discard, far) }()
		return near, nil
	}
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A proxy keeps the connection open and answers pings, but forwards nothing. A new connection
// works.
func TestDeadConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Intercept(silent(a, nil))
		var broken atomic.Bool
		listener := newPipes()
		client := overHTTP2(a, listener, func(conn int32) bool { return broken.Load() && conn == 1 })
		r := follow(t, client, at(101))
		time.Sleep(minOpenTime)
		broken.Store(true)
		a.write("b")
		time.Sleep(maxWatch + watchGrace + headerTimeout + minBackoff)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "b@102")
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		_ = r.stop()
	})
}

// Connections are accepted, but requests are not answered.
func TestServerNeverAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		listener := newPipes()
		listener.deaf.Store(true)
		r := follow(t, overHTTP2(a, listener, func(int32) bool { return false }), event.Position{})
		time.Sleep(unreadyAfter + time.Minute)
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "TLS handshake timeout") {
			t.Errorf("ready: %v; want the error of the handshake", err)
		}
		if age := time.Since(r.LastHeartbeat()); age > time.Minute {
			t.Errorf("no heartbeat for %s", age)
		}
		listener.deaf.Store(false)
		time.Sleep(maxBackoff + headerTimeout + minOpenTime)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "a@101")
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		_ = r.stop()
	})
}

// Over one connection lists work and watches deliver nothing. A stall closes it.
func TestConnectionDeliversListsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.write("a")
		a.Intercept(func(w http.ResponseWriter, r *http.Request) bool { return r.Header.Get("Conn") == "1" && mute(w, r) })
		r := follow(t, overHTTP2(a, newPipes(), func(int32) bool { return false }), at(101))
		synctest.Wait()
		a.write("b")
		time.Sleep(idleAfter + suspicionTimeout)
		a.write("c")
		time.Sleep(time.Second)
		synctest.Wait()
		wantStates(t, "emitted", r.states(), "gap:stalled", "b@102", "gap:stalled", "c@103")
		if err := r.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
		_ = r.stop()
	})
}
