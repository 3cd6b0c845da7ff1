//go:build e2e

package watch

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// bufferingProxy passes the headers of a response on at once, and its body once the
// API server has ended it.
func bufferingProxy(t *testing.T, upstream *rest.Config) *rest.Config {
	t.Helper()
	transport, err := rest.TransportFor(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, upstream.Host+r.URL.RequestURI(), r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		out.Header = r.Header.Clone()
		resp, err := transport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		w.(http.Flusher).Flush()
		var body bytes.Buffer
		if _, err := io.Copy(&body, resp.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body.Bytes())
	}))
	t.Cleanup(proxy.Close)
	return &rest.Config{Host: proxy.URL}
}

// Nothing is lost behind a proxy that holds back the bodies of responses, and that
// is no stall. The API server compacts as it does by default.
func TestBehindABufferingProxy(t *testing.T) {
	s := &server{Cluster: cluster.ForTest(t, cluster.Options{CompactionInterval: 5 * time.Minute})}
	s.client = clientFor(t, s.Config())
	s.mustWrite(t, "a")
	r := s.follow(t, bufferingProxy(t, s.Config()), s.here(t))
	var want []string
	for i := range 360 {
		want = append(want, s.mustWrite(t, "b"+strconv.Itoa(i%20))...)
		time.Sleep(time.Second)
	}
	for deadline := time.Now().Add(maxWatch + overtime + time.Minute); len(ourStates(r)) < len(want) && time.Now().Before(deadline); {
		time.Sleep(time.Second)
	}
	wantStates(t, "taken", ourStates(r), want...)
	wantGrowing(t, r.journal.all())
	wantStalls(t, r, 0)
	if err := r.Ready(); err != nil {
		t.Errorf("unready: %v", err)
	}
}
