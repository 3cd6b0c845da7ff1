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
)

// oneRecord makes a batch of one record.
func oneRecord(s sink.Sink) *sink.Batch { return sinktest.Batch(s, sinktest.Records(0, 1)) }

// A raw server answers each connection as it likes.
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
	write := func(text string) func(net.Conn, *bufio.Reader) {
		return func(c net.Conn, _ *bufio.Reader) { fmt.Fprint(c, text) }
	}
	const badRequest = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
	refusal := "entry for stream '" + stream + "' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T12:00:00Z"
	for name, c := range map[string]struct {
		serve  func(net.Conn, *bufio.Reader)
		reason string
	}{
		"closes the connection":             {func(net.Conn, *bufio.Reader) {}, sink.ReasonUnavailable},
		"resets the connection":             {func(c net.Conn, _ *bufio.Reader) { c.(*net.TCPConn).SetLinger(0) }, sink.ReasonUnavailable},
		"speaks another protocol":           {write("220 mail.example ESMTP\r\n"), sink.ReasonUnavailable},
		"stops in the middle of the header": {write("HTTP/1.1 204 No Con"), sink.ReasonUnavailable},
		"never ends the header": {
			func(c net.Conn, _ *bufio.Reader) {
				fmt.Fprint(c, "HTTP/1.1 204 No Content\r\n")
				line := "X: " + strings.Repeat("y", 1<<20) + "\r\n"
				for _, err := fmt.Fprint(c, line); err == nil; _, err = fmt.Fprint(c, line) {
				}
			}, "", // either it is too much, or it takes too long
		},
		"says nothing": {func(c net.Conn, r *bufio.Reader) { r.ReadByte(); r.WriteTo(nothing{}) }, sink.ReasonTimeout},
		"says nothing after the header": {
			func(c net.Conn, r *bufio.Reader) {
				fmt.Fprint(c, badRequest+"Content-Length: 1000\r\n\r\nentry for")
				r.WriteTo(nothing{})
			}, sink.ReasonTimeout,
		},
		"cuts a refusal in the middle":  {write(badRequest + "Content-Length: 1000\r\n\r\n" + refusal), sink.ReasonRejected},
		"cuts a refusal and its length": {write(badRequest + "Content-Length: 60\r\n\r\n" + refusal[:60]), sink.ReasonRejected},
		"refuses endlessly": {
			write(badRequest + "\r\n" + strings.Repeat(refusal+"; ", 10_000)), sink.ReasonRejected,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink(t, rawServer(t, c.serve), func(c *loki.Config, _ *loki.Options) { c.Timeout = quantity.Duration(300 * time.Millisecond) })
			why := asError(t, s.Send(t.Context(), oneRecord(s)))
			if why.Permanent || len(why.Rejected) > 0 || c.reason != "" && why.Reason != c.reason {
				t.Errorf("got %+v, want one that may pass, for the reason %s", why, c.reason)
			}
			if strings.Contains(why.Error(), "\n") || len(why.Error()) > 1000 {
				t.Errorf("the error is not one line: %q", why)
			}
		})
	}
}

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := newSink(t, "http://"+address, nil)
	why := asError(t, s.Send(t.Context(), oneRecord(s)))
	if want := "push to http://" + address + "/loki/api/v1/push: dial tcp " + address + ": connect: connection refused"; why.Error() != want || why.Reason != sink.ReasonUnavailable {
		t.Errorf("got %q (%s), want %q", why, why.Reason, want)
	}
}

// names is a resolver under a test's control: connections to any host go to
// what the name stands for now.
type names struct {
	address atomic.Value
	dials   atomic.Int32
}

func (n *names) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	n.dials.Add(1)
	var d net.Dialer
	return d.DialContext(ctx, network, n.address.Load().(string))
}

func (n *names) set(rawURL string) {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	n.address.Store(u.Host)
}

// entryPending makes several connections that stay open.
func entryPending(t *testing.T, s *loki.Sink, d *server) {
	t.Helper()
	const n = 4
	var together, sent sync.WaitGroup
	together.Add(n)
	d.set(func() {
		d.answer = func(http.ResponseWriter, string, []entry) (int, string) {
			d.mu.Unlock()
			defer d.mu.Lock()
			together.Done()
			together.Wait()
			return http.StatusNoContent, ""
		}
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
	d.set(func() { d.answer = nil })
}

func TestNameIsResolvedAnewAfterAFailure(t *testing.T) {
	for name, fail := range map[string]func(d *server){
		"no answer": func(d *server) { d.Hang() },
		"an error":  func(d *server) { d.Fail(1000) },
		"a lost answer": func(d *server) {
			d.set(func() { d.answer = func(http.ResponseWriter, string, []entry) (int, string) { return 0, "" } })
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := newServer(t), newServer(t)
			var n names
			n.set(before.URL)
			s := newSink(t, "http://loki.monitoring", func(c *loki.Config, o *loki.Options) {
				c.Timeout = quantity.Duration(200 * time.Millisecond)
				o.DialContext = n.dial
			})
			entryPending(t, s, before)
			fail(before)
			n.set(after.URL)
			b := oneRecord(s)
			asError(t, s.Send(t.Context(), b))
			if err := s.Send(t.Context(), b); err != nil {
				t.Fatalf("after a failure, the old connections are still used: %v", err)
			}
			if len(after.requests) == 0 {
				t.Error("the name was not resolved anew")
			}
		})
	}
}

func TestConnectionsAreKeptButNotForEver(t *testing.T) {
	before, after := newServer(t), newServer(t)
	var n names
	n.set(before.URL)
	s := newSink(t, "http://loki.monitoring", func(_ *loki.Config, o *loki.Options) { o.DialContext = n.dial })
	b := oneRecord(s)
	for range 10 {
		if err := s.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.dials.Load(); got != 1 {
		t.Errorf("%d connections for 10 pushes, want 1", got)
	}
	n.set(after.URL)
	s.Age()
	if err := s.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if len(after.requests) != 1 {
		t.Error("after minutes, the old connection is still used")
	}
}

// withPassword lets only those in who know it.
func withPassword(d *server, password func() string) {
	inner := d.Config.Handler
	d.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, got, _ := r.BasicAuth()
		if user != "hindsight" || got != password() {
			http.Error(w, "wrong password", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func TestPasswordFileThatIsRotated(t *testing.T) {
	d := newServer(t)
	var want atomic.Value
	want.Store("geheim-1")
	withPassword(d, func() string { return want.Load().(string) })
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("geheim-1")
	s := newSink(t, d.URL, func(c *loki.Config, _ *loki.Options) {
		c.HTTP.BasicAuth = &config.BasicAuth{Username: "hindsight", PasswordFile: file}
	})
	b := oneRecord(s)
	if err := s.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	want.Store("geheim-2")
	why := asError(t, s.Send(t.Context(), b))
	if why.Reason != sink.ReasonUnauthorized || !strings.Contains(why.Error(), "check the credentials") {
		t.Errorf("got %v, want one about the credentials", why)
	}
	write("geheim-2")
	if err := s.Send(t.Context(), b); err != nil {
		t.Errorf("the new password is not used: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if why := asError(t, s.Send(t.Context(), b)); !strings.Contains(why.Error(), file) {
		t.Errorf("got %v, want one that names the file", why)
	}
}

func TestPasswordInTheURL(t *testing.T) {
	d := newServer(t)
	withPassword(d, func() string { return "geheim" })
	s := newSink(t, strings.Replace(d.URL, "://", "://hindsight:geheim@", 1), nil)
	if err := s.Send(t.Context(), oneRecord(s)); err != nil {
		t.Fatal(err)
	}
}

func TestOAuth2(t *testing.T) {
	d := newServer(t)
	inner := d.Config.Handler
	d.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token-1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	var hang atomic.Bool
	var waiting atomic.Int32
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			waiting.Add(1)
			defer waiting.Add(-1)
			io.Copy(io.Discard, r.Body) // else the end of the connection goes unnoticed
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
	s := newSink(t, d.URL, func(c *loki.Config, _ *loki.Options) {
		c.Timeout = quantity.Duration(200 * time.Millisecond)
		c.HTTP.OAuth2 = &config.OAuth2{ClientID: "hindsight", ClientSecret: "geheim", TokenURL: tokens.URL}
	})
	hang.Store(true)
	b := oneRecord(s)
	if why := asError(t, s.Send(t.Context(), b)); why.Reason != sink.ReasonTimeout || strings.Contains(why.Error(), "geheim") {
		t.Errorf("got %v, want a timeout: nobody gives a token", why)
	}
	// However often that is tried, it does not pile up connections.
	for range 8 {
		asError(t, s.Send(t.Context(), b))
	}
	deadline := time.Now().Add(10 * time.Second)
	for waiting.Load() > 1 {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests for a token are waiting for an answer", waiting.Load())
		}
		time.Sleep(10 * time.Millisecond) // polling
	}
	hang.Store(false)
	if err := s.Send(t.Context(), b); err != nil {
		t.Error(err)
	}
}

func TestProxy(t *testing.T) {
	d := newServer(t)
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		d.Config.Handler.ServeHTTP(w, r)
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
	if asked.Load() != 1 {
		t.Error("the push did not go through the proxy")
	}
}

func TestErrorsTellNoSecret(t *testing.T) {
	d := newServer(t)
	for name, answer := range map[string]func(http.ResponseWriter, string, []entry) (int, string){
		"refused":         func(http.ResponseWriter, string, []entry) (int, string) { return 401, "" },
		"connection lost": func(http.ResponseWriter, string, []entry) (int, string) { return 0, "" },
		"redirected": func(w http.ResponseWriter, _ string, _ []entry) (int, string) {
			w.Header().Set("Location", "http://u:geheim@elsewhere/?k=geheim")
			return 302, ""
		},
	} {
		d.set(func() { d.answer = answer })
		s := newSink(t, strings.Replace(d.URL, "://", "://hindsight:geheim@", 1)+"/push?key=geheim", nil)
		if why := asError(t, s.Send(t.Context(), oneRecord(s))); strings.Contains(why.Error(), "geheim") {
			t.Errorf("%s: a secret is in %q", name, why)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := s.Send(ctx, oneRecord(s))
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: got %v, want the context's end and no secret", name, err)
		}
	}
	// Nothing listens where tokens or the proxy are said to be.
	s := newSink(t, d.URL, func(c *loki.Config, _ *loki.Options) {
		c.HTTP.OAuth2 = &config.OAuth2{
			ClientID: "hindsight", ClientSecret: "geheim", TokenURL: "http://u:geheim@127.0.0.1:1/token?key=geheim",
			EndpointParams: map[string]string{"resource": "geheim"},
		}
	})
	if why := asError(t, s.Send(t.Context(), oneRecord(s))); strings.Contains(why.Error(), "geheim") || !strings.Contains(why.Error(), "127.0.0.1:1/token?xxxxx") {
		t.Errorf("a secret is in %q, or it does not name the token's address", why)
	}
	proxied, err := parse("{url: 'http://loki', proxy_url: 'http://u:geheim@127.0.0.1:1/?key=geheim'}")
	if err != nil {
		t.Fatal(err)
	}
	s = newSink(t, d.URL, func(c *loki.Config, _ *loki.Options) { c.HTTP = proxied.HTTP })
	if why := asError(t, s.Send(t.Context(), oneRecord(s))); strings.Contains(why.Error(), "geheim") {
		t.Errorf("a secret is in %q", why)
	}
}
