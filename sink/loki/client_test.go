package loki_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
	"github.com/hindsight-events/hindsight/test/wait"
)

// rawServer calls serve for each connection after its first request.
func rawServer(t *testing.T, serve func(c net.Conn, r *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err == nil {
					serve(c, r)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return "http://" + l.Addr().String()
}

func TestHostileServers(t *testing.T) {
	t.Parallel()
	write := func(text string) func(net.Conn, *bufio.Reader) {
		return func(c net.Conn, _ *bufio.Reader) { fmt.Fprint(c, text) }
	}
	const badRequest = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
	rejection := "entry for stream '" + stream + "' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T12:00:00Z"
	for name, c := range map[string]struct {
		serve  func(net.Conn, *bufio.Reader)
		reason string
	}{
		"a closed connection":              {func(net.Conn, *bufio.Reader) {}, sink.ReasonUnavailable},
		"a connection reset":               {func(c net.Conn, _ *bufio.Reader) { c.(*net.TCPConn).SetLinger(0) }, sink.ReasonUnavailable},
		"another protocol":                 {write("220 mail.example ESMTP\r\n"), sink.ReasonUnavailable},
		"a header that ends in the middle": {write("HTTP/1.1 204 No Con"), sink.ReasonUnavailable},
		"an endless header": {
			func(c net.Conn, _ *bufio.Reader) {
				fmt.Fprint(c, "HTTP/1.1 204 No Content\r\n")
				line := "X: " + strings.Repeat("y", 1<<20) + "\r\n"
				for _, err := fmt.Fprint(c, line); err == nil; _, err = fmt.Fprint(c, line) {
				}
			}, "", // either too large or a timeout
		},
		"no response": {func(c net.Conn, r *bufio.Reader) { r.ReadByte(); r.WriteTo(nothing{}) }, sink.ReasonTimeout},
		"nothing after the header": {
			func(c net.Conn, r *bufio.Reader) {
				fmt.Fprint(c, badRequest+"Content-Length: 1000\r\n\r\nentry for")
				r.WriteTo(nothing{})
			}, sink.ReasonTimeout,
		},
		"a body that is shorter than its length": {write(badRequest + "Content-Length: 1000\r\n\r\n" + rejection), sink.ReasonRejected},
		"a truncated rejection":                  {write(badRequest + "Content-Length: 60\r\n\r\n" + rejection[:60]), sink.ReasonRejected},
		"an endless rejection": {
			write(badRequest + "\r\n" + strings.Repeat(rejection+"; ", 10_000)), sink.ReasonRejected,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, rawServer(t, c.serve), func(c *loki.Config, _ *loki.Options) { c.Timeout = quantity.Duration(300 * time.Millisecond) })
			err := asError(t, s.Send(t.Context(), oneRecord(s)))
			if err.Permanent || len(err.Rejected) > 0 || c.reason != "" && err.Reason != c.reason {
				t.Errorf("got %+v, want a temporary error of reason %s", err, c.reason)
			}
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
				t.Errorf("the error is not one short line: %q", err)
			}
		})
	}
}

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := newSink(t, "http://"+address, nil)
	got := asError(t, s.Send(t.Context(), oneRecord(s)))
	if want := "push to http://" + address + "/loki/api/v1/push: dial tcp " + address + ": connect: connection refused"; got.Error() != want || got.Reason != sink.ReasonUnavailable {
		t.Errorf("got %q (%s), want %q", got, got.Reason, want)
	}
}

// hostName resolves all names to one address.
type hostName struct {
	address atomic.Value
	dials   atomic.Int32
}

func (n *hostName) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	n.dials.Add(1)
	var d net.Dialer
	return d.DialContext(ctx, network, n.address.Load().(string))
}

func (n *hostName) set(rawURL string) {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	n.address.Store(u.Host)
}

// openConnections makes the sink open several connections, which stay open.
func openConnections(t *testing.T, s *loki.Sink, l *fakeloki.Server) {
	t.Helper()
	const n = 4
	var together, sent sync.WaitGroup
	together.Add(n)
	l.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		together.Done()
		together.Wait()
		return accept(p)
	})
	for i := range n {
		sent.Go(func() {
			records := sinktest.Records(i, 1)
			records[0].Event.Namespace = fmt.Sprint(i)
			if err := s.Send(t.Context(), sinktest.Batch(s, records)); err != nil {
				t.Error(err)
			}
		})
	}
	sent.Wait()
	l.ScriptPushes(accept)
}

func TestHostNameIsResolvedAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(l *fakeloki.Server) fakeloki.Script{
		"no response":         func(l *fakeloki.Server) fakeloki.Script { return l.Hang },
		"an error":            func(*fakeloki.Server) fakeloki.Script { return fakeloki.Respond(503, "") },
		"a closed connection": func(*fakeloki.Server) fakeloki.Script { return fakeloki.Respond(0, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := startLoki(t), startLoki(t)
			var host hostName
			host.set(before.URL)
			s := newSink(t, "http://loki.monitoring", func(c *loki.Config, o *loki.Options) {
				c.Timeout = quantity.Duration(200 * time.Millisecond)
				o.DialContext = host.dial
			})
			openConnections(t, s, before)
			before.ScriptPushes(fail(before))
			host.set(after.URL)
			b := oneRecord(s)
			asError(t, s.Send(t.Context(), b))
			if err := s.Send(t.Context(), b); err != nil {
				t.Fatalf("the old connections are still used after a failure: %v", err)
			}
			if len(after.Pushes()) == 0 {
				t.Error("the host name was not resolved again")
			}
		})
	}
}

func TestConnectionsAreReusedAndRenewed(t *testing.T) {
	t.Parallel()
	before, after := startLoki(t), startLoki(t)
	var host hostName
	host.set(before.URL)
	s := newSink(t, "http://loki.monitoring", func(_ *loki.Config, o *loki.Options) { o.DialContext = host.dial })
	b := oneRecord(s)
	for range 10 {
		if err := s.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if got := host.dials.Load(); got != 1 {
		t.Errorf("%d connections for 10 pushes, want 1", got)
	}
	host.set(after.URL)
	s.AgeConnections()
	if err := s.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if len(after.Pushes()) != 1 {
		t.Error("the old connection is still used after minutes")
	}
}

// requirePassword rejects requests without the password.
func requirePassword(l *fakeloki.Server, password func() string) {
	l.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		user, got, _ := r.BasicAuth()
		if user == "hindsight" && got == password() {
			return false
		}
		http.Error(w, "wrong password", http.StatusUnauthorized)
		return true
	})
}

func TestUserAgent(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*loki.Config, *loki.Options){
		"no credentials": func(*loki.Config, *loki.Options) {},
		"password": func(c *loki.Config, _ *loki.Options) {
			c.HTTP.BasicAuth = &config.BasicAuth{Username: "hindsight", Password: "geheim"}
		},
	} {
		l := startLoki(t)
		var got atomic.Value
		l.Intercept(func(_ http.ResponseWriter, r *http.Request) bool { got.Store(r.UserAgent()); return false })
		s := newSink(t, l.URL, change)
		if err := s.Send(t.Context(), oneRecord(s)); err != nil || got.Load() != "hindsight" {
			t.Errorf("%s: user agent %q, %v", name, got.Load(), err)
		}
	}
}

// The dialer of prometheus/common wraps connections to record what they do, in 10 KB each.
func TestConnectionsAreNotWrapped(t *testing.T) {
	t.Parallel()
	var dialed net.Conn
	s := newSink(t, startLoki(t).URL, func(_ *loki.Config, o *loki.Options) {
		o.DialContext = func(ctx context.Context, network, address string) (_ net.Conn, err error) {
			dialed, err = new(net.Dialer).DialContext(ctx, network, address)
			return dialed, err
		}
	})
	var used net.Conn
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { used = i.Conn }})
	if err := s.Send(ctx, oneRecord(s)); err != nil || used == nil || used != dialed {
		t.Errorf("connection %T is used, %T was dialed; %v", used, dialed, err)
	}
}

func TestPasswordFileIsReadAgain(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	var want atomic.Value
	want.Store("geheim-1")
	requirePassword(l, func() string { return want.Load().(string) })
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("geheim-1")
	s := newSink(t, l.URL, func(c *loki.Config, _ *loki.Options) {
		c.HTTP.BasicAuth = &config.BasicAuth{Username: "hindsight", PasswordFile: file}
	})
	b := oneRecord(s)
	if err := s.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	want.Store("geheim-2")
	err := asError(t, s.Send(t.Context(), b))
	if err.Reason != sink.ReasonUnauthorized || !strings.Contains(err.Error(), "check the credentials") {
		t.Errorf("got %v, want one about the credentials", err)
	}
	write("geheim-2")
	if err := s.Send(t.Context(), b); err != nil {
		t.Errorf("the new password is not used: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := asError(t, s.Send(t.Context(), b)); !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want one that names the file", err)
	}
}

func TestPasswordInTheURL(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	requirePassword(l, func() string { return "geheim" })
	s := newSink(t, strings.Replace(l.URL, "://", "://hindsight:geheim@", 1), nil)
	if err := s.Send(t.Context(), oneRecord(s)); err != nil {
		t.Fatal(err)
	}
}

func TestOAuth2(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	l.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	var hang atomic.Bool
	var waiting atomic.Int32
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			waiting.Add(1)
			defer waiting.Add(-1)
			io.Copy(io.Discard, r.Body) // the server notices a closed connection only after the body
			select {
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"token-1","token_type":"bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	s := newSink(t, l.URL, func(c *loki.Config, _ *loki.Options) {
		c.Timeout = quantity.Duration(200 * time.Millisecond)
		c.HTTP.OAuth2 = &config.OAuth2{ClientID: "hindsight", ClientSecret: "geheim", TokenURL: tokens.URL}
	})
	hang.Store(true)
	b := oneRecord(s)
	if err := asError(t, s.Send(t.Context(), b)); err.Reason != sink.ReasonTimeout || strings.Contains(err.Error(), "geheim") {
		t.Errorf("got %v, want a timeout because there is no token", err)
	}
	// Repeated attempts do not accumulate connections.
	for range 8 {
		asError(t, s.Send(t.Context(), b))
	}
	wait.Until(t, "at most one request for a token waits for a response", func() bool { return waiting.Load() <= 1 })
	hang.Store(false)
	if err := s.Send(t.Context(), b); err != nil {
		t.Error(err)
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	var requests atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		l.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	c, err := parse("{url: 'http://loki.invalid', proxy_url: '" + proxy.URL + "'}")
	if err != nil {
		t.Fatal(err)
	}
	s := newSink(t, "http://loki.invalid", func(to *loki.Config, _ *loki.Options) { to.HTTP = c.HTTP })
	if err := s.Send(t.Context(), oneRecord(s)); err != nil {
		t.Fatal(err)
	}
	if requests.Load() != 1 {
		t.Error("the push did not go through the proxy")
	}
}

func TestErrorsHaveNoSecrets(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	for name, script := range map[string]fakeloki.Script{
		"rejected":          fakeloki.Respond(401, ""),
		"connection closed": fakeloki.Respond(0, ""),
		"redirected": func(*fakeloki.Push) fakeloki.Response {
			return fakeloki.Response{Status: 302, Header: http.Header{"Location": {"http://u:geheim@elsewhere/?k=geheim"}}}
		},
	} {
		l.ScriptPushes(script)
		s := newSink(t, strings.Replace(l.URL, "://", "://hindsight:geheim@", 1)+"/loki/api/v1/push?key=geheim", nil)
		if err := asError(t, s.Send(t.Context(), oneRecord(s))); strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: a secret is in %q", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := s.Send(ctx, oneRecord(s))
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: got %v, want context.Canceled and no secret", name, err)
		}
	}
	// Nothing listens at the addresses of the token server and the proxy.
	s := newSink(t, l.URL, func(c *loki.Config, _ *loki.Options) {
		c.HTTP.OAuth2 = &config.OAuth2{
			ClientID: "hindsight", ClientSecret: "geheim", TokenURL: "http://u:geheim@127.0.0.1:1/token?key=geheim",
			EndpointParams: map[string]string{"resource": "geheim"},
		}
	})
	if err := asError(t, s.Send(t.Context(), oneRecord(s))); strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "127.0.0.1:1/token?xxxxx") {
		t.Errorf("a secret is in %q, or the address of the token server is missing", err)
	}
	proxied, err := parse("{url: 'http://loki', proxy_url: 'http://u:geheim@127.0.0.1:1/?key=geheim'}")
	if err != nil {
		t.Fatal(err)
	}
	s = newSink(t, l.URL, func(c *loki.Config, _ *loki.Options) { c.HTTP = proxied.HTTP })
	if err := asError(t, s.Send(t.Context(), oneRecord(s))); strings.Contains(err.Error(), "geheim") {
		t.Errorf("a secret is in %q", err)
	}
}
