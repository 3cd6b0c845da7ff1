// Command sim stands in for a cluster and for Loki, to measure speed:
//
//	go run ./test/sim [-events N]
//
// It serves what an exporter of Events asks an API server for (paged lists and
// watches of Events, in protobuf, and the namespace kube-system), and
// takes pushes as Loki does. It is made to cost little beside what is measured,
// and knows no failures but those that it is told to show: whether an exporter
// is correct is for the tests against a real API server and a real Loki.
//
// The Events are made up, always alike: -events of them are there from the
// start, written in the last hour; POST /sim/write writes more, at a rate or at
// once. See [control] for the rest under /sim/.
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
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8001", "`address` of the API server, of Loki and of /sim/")
	events := flag.Int("events", 10_000, "how many Events there are at the start")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *events); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address string, events int) error {
	if events < 0 {
		return fmt.Errorf("-events %d: must not be negative", events)
	}
	encoding, err := newEncoding()
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

// newSim returns everything that sim serves.
func newSim(events int, e *encoding, now time.Time) http.Handler {
	h := newHistory(events, now)
	l := newLoki(h)
	mux := http.NewServeMux()
	server := newAPIServer(h, e)
	server.register(mux)
	mux.HandleFunc("POST /loki/api/v1/push", l.push)
	(&control{history: h, server: server, loki: l}).register(mux)
	return mux
}
