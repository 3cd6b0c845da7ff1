// Command sim simulates a cluster and Loki, to measure speed:
//
//	go run ./test/sim [-events N] [-streams N] [-zipf EXPONENT]
//
// It serves the requests of an exporter of Events (paged lists and watches of Events in
// protobuf, the namespace kube-system, and Leases), and accepts pushes as Loki does. Events are encoded
// once as templates, so that serving costs a fraction of decoding (unlike ../fakeapi, which is
// for correctness).
//
// The Events are generated and always equal: -events of them exist at the start, written in the
// last hour; POST /sim/write writes more, at a rate or at once. See [control] for the other paths
// under /sim/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/test/fakeapi"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8001", "`address` of the API server, of Loki and of /sim/")
	events := flag.Int("events", 10_000, "Events at the start")
	var s shape
	flag.IntVar(&s.streams, "streams", 2000, "pairs of a namespace and a reason")
	flag.Float64Var(&s.exponent, "zipf", 0, "exponent of the `power` law of their rates; 0: all are equal")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *events, s); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address string, events int, s shape) error {
	if events < 0 {
		return fmt.Errorf("-events %d: must not be negative", events)
	}
	encoding, err := newEncoding(s)
	if err != nil {
		return err
	}
	handler := newSim(events, encoding, time.Now())
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("%d Events and a Loki on http://%s\n", events, listener.Addr())
	server := &http.Server{Handler: handler}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newSim returns the handler of all paths.
func newSim(events int, e *encoding, now time.Time) http.Handler {
	h := newHistory(events, now)
	l := newLoki(h, e)
	mux := http.NewServeMux()
	server := newAPIServer(h, e)
	server.register(mux)
	mux.HandleFunc("POST /loki/api/v1/push", l.push)
	mux.Handle("/apis/coordination.k8s.io/", fakeapi.Leases())
	(&control{history: h, server: server, loki: l}).register(mux)
	r := &requests{next: mux, counts: make(map[string]count)}
	mux.HandleFunc("GET /sim/requests", r.serve)
	return r
}
