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

// faults are what a gateway in front of the store may do to a push.
var faults = []struct {
	name string
	do   http.HandlerFunc // nil: pass it on
}{
	{"hangs", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is a client that goes away noticed
		<-r.Context().Done()
	}},
	{"resets", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{"500", status(500)},
	{"502", status(502)},
	{"503 and a time", statusAfter(503, "1")},
	{"429", status(429)},
	{"429 and a time", statusAfter(429, "1")},
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

// A gateway that does everything wrong, one thing after the other, loses nothing,
// repeats nothing, and neither holds up another sink nor fills the memory.
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
	path := target.Path // the sink's, which the proxy passes on
	target.Path = ""
	pass := httputil.NewSingleHostReverseProxy(target)
	var fault atomic.Int64
	fault.Store(-1)
	var broken atomic.Int64 // pushes that met with a fault
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
	mustPut(t, ledger, client, newEvent("default", "first.", "first"))
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
		wait.Until(t, "pushes meet with "+faults[i].name, func() bool { return broken.Load() > met })
		pause(t.Context(), time.Second)
		// The other sink goes on.
		written := ledger.snapshot()
		wait.Until(t, "everything is on the standard output while the gateway "+faults[i].name, func() bool { return len(written.missing(p.seen())) == 0 })
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
	wantStored(t, stored(t, store, inStore), ledger.all())
	checkOrder(t, p)
	// The race detector multiplies what there is.
	if grown > 160<<20 {
		t.Errorf("the memory grew by %d MiB", grown>>20)
	}
	t.Logf("%d states, %d pushes met with a fault, the memory grew by %d KiB", ledger.len(), broken.Load(), grown>>10)
}

var resident = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// residentMemory is that of the program now, in bytes.
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
