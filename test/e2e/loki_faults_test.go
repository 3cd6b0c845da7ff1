//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// faults are the ways in which a gateway can fail a push.
var faults = []struct {
	name string
	do   http.HandlerFunc // nil: forward the push
}{
	{"hangs", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // needed to notice that the client disconnects
		<-r.Context().Done()
	}},
	{"resets", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{"500", status(500)},
	{"502", status(502)},
	{"503 with Retry-After", statusAfter(503, "1")},
	{"429", status(429)},
	{"429 with Retry-After", statusAfter(429, "1")},
	{"413", status(413)},
	{"260", status(260)},
	{"404", status(404)},
}

func status(code int) http.HandlerFunc { return statusAfter(code, "") }

func statusAfter(code int, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(code)
	}
}

// With a gateway that fails in every way, one after the other, nothing is lost or
// repeated, other sinks are not delayed, and memory does not grow.
func TestFaultyGateway(t *testing.T) { cluster.EachStore(t, faultyGateway) }

func faultyGateway(t *testing.T, store cluster.Store) {
	c := cluster.ForTest(t, cluster.Options{})
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, c)
	ledger := newLedger()
	target, err := url.Parse(store.SinkURL())
	if err != nil {
		t.Fatal(err)
	}
	path := target.Path // of the sink; the proxy forwards it
	target.Path = ""
	pass := httputil.NewSingleHostReverseProxy(target)
	var fault atomic.Int64
	fault.Store(-1)
	var broken atomic.Int64 // failed pushes
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i := fault.Load(); i >= 0 {
			broken.Add(1)
			faults[i].do(w, r)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		gateway.CloseClientConnections()
		gateway.Close()
	})

	p := start(t, c.Kubeconfig(), fmt.Sprintf("cluster: %s\njournal: {dir: %q}\nsinks:\n  - {name: out, stdout: {}}\n", clusterName, t.TempDir())+lokiSink(gateway.URL+path, ", timeout: 1s"))
	mustCreate(t, ledger, client, newEvent("default", "first.", "first"))
	awaitStored(t, p, store, ledger.all())
	before := residentMemory(t, p)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	writers.Go(func() { recordCore(ctx, t, client, ledger) })
	writers.Go(func() { writePlain(ctx, client, ledger) })
	for i := range faults {
		met := broken.Load()
		fault.Store(int64(i))
		wait.Until(t, "pushes fail with "+faults[i].name, func() bool { return broken.Load() > met })
		pause(t.Context(), time.Second)
		// The other sink delivers.
		written := ledger.snapshot()
		wait.Until(t, "all states are on the standard output during "+faults[i].name, func() bool { return len(written.missing(p.seen())) == 0 })
		fault.Store(-1)
		pause(t.Context(), 500*time.Millisecond)
	}
	stop()
	writers.Wait()
	awaitStored(t, p, store, ledger.all())
	grown := residentMemory(t, p) - before
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantStored(t, stored(t, store, allStored), ledger.all())
	wantOrder(t, p)
	// The race detector multiplies memory.
	if grown > 160<<20 {
		t.Errorf("the memory grew by %d MiB", grown>>20)
	}
	t.Logf("%d states, %d failed pushes, the memory grew by %d KiB", ledger.len(), broken.Load(), grown>>10)
}

var resident = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// residentMemory returns the resident memory of the program in bytes.
func residentMemory(t *testing.T, p *running) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	m := resident.FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmRSS in\n%s", text)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
