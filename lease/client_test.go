package lease

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// A request that times out closes its connection, which may be dead.
func TestRetryHasANewConnection(t *testing.T) {
	var (
		mu   sync.Mutex
		from []string
		stop = make(chan struct{})
	)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from = append(from, r.Proto+" "+r.RemoteAddr)
		mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	defer close(stop)

	c, err := newClient(Options{
		Kubernetes: &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		Namespace:  "monitoring", Name: "hindsight", RenewDeadline: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for arrived := 0; arrived < 2; {
		if _, err := c.get(t.Context()); err == nil {
			t.Fatal("got a response from a server that sends none")
		}
		mu.Lock()
		arrived = len(from) // a request may time out before it has a connection
		mu.Unlock()
	}
	if from[0] == from[1] {
		t.Errorf("both requests used one connection, %s", from[0])
	}
}
