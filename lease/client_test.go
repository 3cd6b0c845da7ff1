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

// A request that gets no answer takes its connection with it: the next attempt
// does not wait on one that is dead.
func TestAnAttemptAfterAHungOneHasANewConnection(t *testing.T) {
	var (
		mu   sync.Mutex
		from []string
		over = make(chan struct{})
	)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from = append(from, r.Proto+" "+r.RemoteAddr)
		mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	defer close(over)

	c, err := newClient(Options{
		Kubernetes: &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		Namespace:  "monitoring", Name: "hindsight", RenewDeadline: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for asked := 0; asked < 2; {
		if _, err := c.get(t.Context()); err == nil {
			t.Fatal("got an answer from a server that gives none")
		}
		mu.Lock()
		asked = len(from) // a slow machine may give up before it has connected
		mu.Unlock()
	}
	if from[0] == from[1] {
		t.Errorf("both requests came by one connection, %s", from[0])
	}
}
