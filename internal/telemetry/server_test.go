package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hindsight-events/hindsight/internal/telemetry"
)

func TestServer(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "hindsight_test_total"})
	reg.MustRegister(counter)
	counter.Inc()
	healthy := func() []string { return nil }
	stuck := func() []string { return []string{"sink a: stuck", "journal: full"} }
	log := slog.New(slog.DiscardHandler)
	s, err := telemetry.Listen("127.0.0.1:0", telemetry.Options{Metrics: reg, Live: healthy, Ready: stuck, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/livez":   {http.StatusOK, "ok\n"},
		"/readyz":  {http.StatusServiceUnavailable, "sink a: stuck\njournal: full\n"},
		"/metrics": {http.StatusOK, "hindsight_test_total 1\n"},
		"/":        {http.StatusNotFound, ""},
	} {
		response, err := http.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != want.status || !strings.HasSuffix(string(body), want.body) {
			t.Errorf("%s: got %d %q, want %d %q", path, response.StatusCode, body, want.status, want.body)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v after its context ended", err)
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = telemetry.Listen(l.Addr().String(), telemetry.Options{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "listen") {
		t.Errorf("got %v, want an error with the address and the key", err)
	}
}
