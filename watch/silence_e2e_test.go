//go:build e2e

package watch

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/fakeapi"
	"github.com/hindsight-events/hindsight/test/nightly"
	"github.com/hindsight-events/hindsight/test/wait"
)

// bufferingProxy forwards the headers of a response at once, and its body after its end. While
// discard is set, it discards the bodies of watches.
func bufferingProxy(t *testing.T, upstream *rest.Config, discard *atomic.Bool) *rest.Config {
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
		if discard.Load() && fakeapi.IsWatch(r) {
			return
		}
		_, _ = w.Write(body.Bytes())
	}))
	t.Cleanup(proxy.Close)
	return &rest.Config{Host: proxy.URL}
}

// A proxy that delays the bodies of responses causes neither loss nor a stall. The API server
// compacts with its default interval.
func TestRealBufferingProxy(t *testing.T) {
	t.Parallel()
	s := &server{Cluster: cluster.ForTest(t, cluster.Options{CompactionInterval: 5 * time.Minute})}
	s.client = clientFor(t, s.Config())
	s.mustWrite(t, "a")
	r := s.follow(t, bufferingProxy(t, s.Config(), new(atomic.Bool)), s.here(t))
	var want []string
	for i := range nightly.Size(90, 360) {
		want = append(want, s.mustWrite(t, "b"+strconv.Itoa(i%20))...)
		time.Sleep(time.Second)
	}
	wait.Within(t.Context(), maxWatch+watchGrace+time.Minute, func() bool { return len(ourStates(r)) >= len(want) })
	wantStates(t, "emitted", ourStates(r), want...)
	wantGrowing(t, r.journal.all())
	wantStalls(t, r, 0)
	if err := r.Ready(); err != nil {
		t.Errorf("unready: %v", err)
	}
}

// A proxy discards the bodies of watches. Until watches work again, lists deliver the latest
// states, after one gap record.
func TestProxyDiscardsWatches(t *testing.T) {
	t.Parallel()
	s := &server{Cluster: cluster.ForTest(t, cluster.Options{CompactionInterval: 5 * time.Minute})}
	s.client = clientFor(t, s.Config())
	s.mustWrite(t, "a")
	var discard atomic.Bool
	discard.Store(true)
	r := s.follow(t, bufferingProxy(t, s.Config(), &discard), s.here(t))
	await := func(description string, within time.Duration, ok func() bool) {
		t.Helper()
		if !wait.Within(t.Context(), within, ok) {
			t.Fatalf("not within %s: %s", within, description)
		}
	}
	written := s.mustWrite(t, "b", "b", "c")
	await("the stall is declared", idleAfter+deliveryGrace+suspicionTimeout, func() bool { return r.Ready() != nil })
	if err := r.Ready(); !strings.Contains(err.Error(), "watches deliver nothing") {
		t.Errorf("unready: %v", err)
	}
	await("the latest states are listed", time.Minute, func() bool { return len(r.states()) == 3 })
	wantStates(t, "emitted", r.states(), "gap:stalled", written[1], written[2])
	written = s.mustWrite(t, "b", "c", "c")
	await("later states are listed", 2*time.Minute, func() bool { return len(r.states()) == 5 })
	wantStates(t, "emitted", r.states()[3:], written[0], written[2])
	discard.Store(false)
	for i := 0; r.Ready() != nil; i++ {
		if i == 120 {
			t.Fatalf("still unready: %v", r.Ready())
		}
		written = append(written, s.mustWrite(t, "d")...)
		time.Sleep(time.Second)
	}
	await("the last state arrives", time.Minute, func() bool { return slices.Contains(r.states(), written[len(written)-1]) })
	gaps := gapRecords(r)
	if len(gaps) != 2 || gaps[0].Event.Annotations["hindsight/from_version"] != gaps[1].Event.Annotations["hindsight/from_version"] ||
		gaps[1].Event.Annotations["hindsight/to_version"] == "" {
		t.Errorf("want one gap, first without an end: %+v", gaps)
	}
	wantGrowing(t, r.journal.all())
}
