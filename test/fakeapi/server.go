// Package fakeapi is a fake Kubernetes API server for tests. It serves Events (lists in pages,
// watches, create, get, update, patch), Leases and the namespace kube-system, in protobuf or JSON
// as the client accepts. It keeps the history of the Events, as etcd does, so that a watch can resume
// from an old version until Compact removes it.
//
// Faults are scripted with Intercept, which sees each request first:
//
//	s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
//		if !fakeapi.IsWatch(r) {
//			return false // the server answers
//		}
//		fakeapi.Fail(w, r, http.StatusTooManyRequests, "too many requests")
//		return true
//	})
package fakeapi

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Server is a fake API server. All methods are safe for concurrent use.
type Server struct {
	t      testing.TB
	mux    *http.ServeMux
	pipes  *pipes
	closed chan struct{} // ends open watches

	mu         sync.Mutex // guards the rest
	clusterUID types.UID
	intercept  func(http.ResponseWriter, *http.Request) bool
	requests   []string

	version   uint64 // of the last write
	compacted uint64 // older versions are gone
	history   []Change
	events    map[key]*corev1.Event // the present ones
	leases    map[key]*coordinationv1.Lease
	changed   chan struct{} // closed when the history grows
}

// New returns a server that is closed at the end of the test. Its first version is 100; the
// kube-system namespace has the uid "uid-a".
func New(t testing.TB) *Server {
	s := &Server{
		t: t, closed: make(chan struct{}), changed: make(chan struct{}),
		clusterUID: "uid-a", version: 100, events: map[key]*corev1.Event{}, leases: map[key]*coordinationv1.Lease{},
	}
	s.mux = s.routes()
	s.pipes = &pipes{conns: make(chan net.Conn), closed: s.closed}
	server := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(s.pipes)
	}()
	t.Cleanup(func() {
		close(s.closed)
		_ = server.Close()
		<-done
	})
	return s
}

// Leases returns a server of Leases alone, which does not need a test.
func Leases() http.Handler {
	return (&Server{version: 100, leases: map[key]*coordinationv1.Lease{}}).routes()
}

// Config returns a client configuration. Its connections are pipes within the process, so that
// client and server can be in one synctest bubble.
func (s *Server) Config() *rest.Config {
	transport := &http.Transport{DialContext: s.pipes.dial}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &rest.Config{Host: "http://api", Transport: transport}
}

// Listen serves on a loopback port as well, and returns the URL.
func (s *Server) Listen() string {
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	s.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// Kubeconfig calls Listen and returns the path of a kubeconfig file for the URL.
func (s *Server) Kubeconfig() string {
	s.t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["fake"] = &clientcmdapi.Cluster{Server: s.Listen()}
	config.Contexts["fake"] = &clientcmdapi.Context{Cluster: "fake"}
	config.CurrentContext = "fake"
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Intercept sets a function that may answer a request instead of the server, and then returns true.
// nil removes it.
func (s *Server) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// SetClusterUID sets the uid of the namespace kube-system. If it is empty, reading the namespace is
// forbidden.
func (s *Server) SetClusterUID(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clusterUID = uid
}

// Requests returns the requests so far, each as method, space, path and query.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[:len(s.requests):len(s.requests)]
}

// ForgetRequests empties the list of requests.
func (s *Server) ForgetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// CountRequests returns how many requests contained all of the given parts.
func (s *Server) CountRequests(parts ...string) int {
	n := 0
next:
	for _, r := range s.Requests() {
		for _, part := range parts {
			if !strings.Contains(r, part) {
				continue next
			}
		}
		n++
	}
	return n
}

// IsWatch reports whether a request opens a watch.
func IsWatch(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

func (s *Server) routes() *http.ServeMux {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
	mux := http.NewServeMux()
	for _, path := range []string{"/api/v1/events", "/api/v1/namespaces/{namespace}/events"} {
		list := s.locked(func(r *http.Request, _ []byte) (int, Object) { return s.list(r) })
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if IsWatch(r) {
				s.serveWatch(w, r)
			} else {
				list(w, r)
			}
		})
	}
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/events", s.locked(s.createEvent))
	mux.HandleFunc("/api/v1/namespaces/{namespace}/events/{name}", s.locked(s.event))
	mux.HandleFunc("POST "+leases, s.locked(s.createLease))
	mux.HandleFunc(leases+"/{name}", s.locked(s.lease))
	mux.HandleFunc("GET /api/v1/namespaces/kube-system", s.locked(s.kubeSystem))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		Fail(w, r, http.StatusNotFound, "no such path")
	})
	return mux
}

// locked returns a handler that calls answer with s.mu held. It holds it neither while it reads the
// request nor while it writes the answer: a client that does not read blocks no other one.
func (s *Server) locked(answer func(r *http.Request, body []byte) (int, Object)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has closed the connection
		}
		s.mu.Lock()
		code, o := answer(r, body)
		s.mu.Unlock()
		Respond(w, r, code, o)
	}
}

func (s *Server) kubeSystem(*http.Request, []byte) (code int, answer Object) {
	if s.clusterUID == "" {
		return failure(http.StatusForbidden, "namespaces is forbidden")
	}
	return http.StatusOK, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: s.clusterUID}}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	intercept := s.intercept
	s.mu.Unlock()
	if intercept == nil || !intercept(w, r) {
		s.Serve(w, r)
	}
}

// Serve answers a request as without Intercept.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// pipes is a listener whose connections are pipes within the process.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
