//go:build e2e

package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// stallTimeout bounds the detection of a stall. The slowest takes two and a half
// minutes: until a quiet watch is checked, and the watch has not delivered what a list shows.
const stallTimeout = 5 * time.Minute

// A connection can be open, and even answer pings, without delivering anything. The
// program detects and logs that, reconnects, and loses and repeats nothing.
func TestStalls(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	makeNamespaces(t, client)
	h := &history{t: t, began: time.Now()}
	dir := workingDir(t)
	direct := func(name string) *stalling {
		return newStalling(t, name, newReplica(t, name, filepath.Join(dir, name), c.Kubeconfig(), c.URL(), h.note))
	}
	behind := func(name string) (*stalling, *gateway) {
		g := newGateway(t, c, dir)
		return newStalling(t, name, newReplica(t, name, filepath.Join(dir, name), g.kubeconfig, g.url, h.note)), g
	}

	// The connections deliver nothing any more.
	deaf := direct("deaf")
	deaf.says = "reading events failed"
	deaf.begin = func() { deaf.set(hangs) }
	deaf.end = func() { deaf.set(passes) }

	// A server accepts connections and sends nothing.
	mute := direct("mute")
	mute.says = "TLS handshake timeout"
	mute.begin = func() { mute.set(resets); mute.set(hangs) }
	mute.end = func() { mute.set(passes) }

	// A gateway answers pings, but no requests.
	unanswered, busy := behind("unanswered")
	unanswered.says = "accepted the request and does not answer"
	unanswered.begin = func() { busy.hold.Store(true); unanswered.set(resets); unanswered.set(passes) }
	unanswered.end = func() { busy.hold.Store(false) }

	// A gateway answers pings and requests, but delivers nothing on a watch that
	// is open.
	silent, quiet := behind("silent")
	silent.begin = quiet.silence
	silent.end = func() {} // the program has to reconnect by itself

	all := []*stalling{deaf, mute, unanswered, silent}
	w := newWriter(client, newLedger(), 0, 0)
	write := func(n int) {
		for range n {
			if err := w.once(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(1)
	for _, s := range all {
		if err := s.replica.start(); err != nil {
			t.Fatal(err)
		}
		s.within(timeout, "the first Event arrives", func() bool { return s.missing(w.ledger) == 0 })
	}
	began := time.Now()
	for _, s := range all {
		s.begin()
	}
	write(5) // undelivered

	// All replicas are awaited at once.
	var waiting sync.WaitGroup
	for _, s := range all {
		waiting.Go(func() {
			if s.says != "" {
				s.within(stallTimeout, "the log contains "+s.says, func() bool { return strings.Contains(s.logText(), s.says) })
				t.Logf("%s: logged after %v", s.name, time.Since(began).Round(time.Second))
			}
			s.end()
			s.within(stallTimeout, "everything arrives", func() bool { return s.missing(w.ledger) == 0 })
			t.Logf("%s: recovered after %v", s.name, time.Since(began).Round(time.Second))
		})
	}
	waiting.Wait()
	for _, s := range all {
		if out := s.out; out.repeats > 0 || len(out.gaps) > 0 || len(out.wrong) > 0 {
			t.Errorf("%s: %d repeated lines, %d gaps, errors %q, want none", s.name, out.repeats, len(out.gaps), out.wrong)
		}
	}
}

// stalling is a replica and its stall.
type stalling struct {
	t       *testing.T
	name    string
	replica *replica
	out     *output

	begin, end func()
	says       string // logged on detection, before end is called; empty: nothing
}

func newStalling(t *testing.T, name string, r *replica) *stalling {
	t.Helper()
	if err := r.configure(fmt.Sprintf("log: {level: debug}\njournal: {dir: %q}\nsinks: [{name: stdout, stdout: {}}]\n", r.journalDir())); err != nil {
		t.Fatal(err)
	}
	return &stalling{t: t, name: name, replica: r, out: newOutput(name, newLines(filepath.Join(r.dir, "stdout-*.jsonl")).read)}
}

func (s *stalling) set(m mode) {
	if err := s.replica.proxy.set(m); err != nil {
		s.t.Error(err)
	}
}

// missing counts the states that have not arrived.
func (s *stalling) missing(l *ledger) int {
	s.out.update(s.t.Context(), l)
	return len(s.out.open)
}

func (s *stalling) logText() string {
	return s.replica.allRuns()[0].logText()
}

// within waits until a condition holds, and reports whether it did in time.
func (s *stalling) within(d time.Duration, condition string, holds func() bool) bool {
	ok := wait.Within(s.t.Context(), d, holds)
	if !ok {
		s.t.Errorf("%s: not within %v: %s\n%s", s.name, d, condition, s.logText())
	}
	return ok
}

// gateway is an HTTP/2 server in front of the API server that keeps its
// connections alive even if it does not answer requests.
type gateway struct {
	url        string
	kubeconfig string
	hold       atomic.Bool // never answer requests

	mu     sync.Mutex // guards the rest
	silent chan struct{}
}

func newGateway(t *testing.T, c *cluster.Cluster, dir string) *gateway {
	t.Helper()
	target, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(c.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	g := &gateway{silent: make(chan struct{})}
	pass := httputil.NewSingleHostReverseProxy(target)
	pass.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	pass.FlushInterval = -1
	pass.ModifyResponse = func(r *http.Response) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		r.Body = silenced{r.Body, r.Request.Context(), g.silent}
		return nil
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.hold.Load() {
			<-r.Context().Done()
			return
		}
		pass.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	g.url, g.kubeconfig = server.URL, filepath.Join(dir, fmt.Sprintf("%s.kubeconfig", server.Listener.Addr()))

	config := clientcmdapi.NewConfig()
	config.Clusters["gateway"] = &clientcmdapi.Cluster{
		Server:                   server.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{Token: cluster.AdminToken}
	config.Contexts["gateway"] = &clientcmdapi.Context{Cluster: "gateway", AuthInfo: "admin"}
	config.CurrentContext = "gateway"
	if err := clientcmd.WriteToFile(*config, g.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return g
}

// silence stops the delivery of open responses. Later responses are complete.
func (g *gateway) silence() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.silent)
	g.silent = make(chan struct{})
}

// silenced is a response body that stops when silent is closed.
type silenced struct {
	io.ReadCloser
	ctx    context.Context
	silent chan struct{}
}

func (s silenced) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	select {
	case <-s.silent:
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	default:
		return n, err
	}
}
