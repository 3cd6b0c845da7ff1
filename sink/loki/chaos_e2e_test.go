//go:build e2e

package loki_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// faultyProxy forwards most pushes to a Loki, and fails for others in every way, with or without
// forwarding them. It rejects every push with the word "poison".
func faultyProxy(t *testing.T, l *cluster.Loki) *httptest.Server {
	to, err := url.Parse(l.URL())
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	var mu sync.Mutex // guards dice
	dice := rand.New(rand.NewPCG(1, 2))
	roll := func() int {
		mu.Lock()
		defer mu.Unlock()
		return dice.IntN(40)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		streams, _, err := fakeloki.DecodePush(body)
		if err != nil || len(streams) != 1 {
			t.Errorf("not a push of one stream: %v", err)
			return
		}
		for _, e := range streams[0].Entries {
			if strings.Contains(e.Line, "poison") {
				http.Error(w, "blocked by the web application firewall", http.StatusBadRequest)
				return
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch roll() {
		case 0:
			http.Error(w, "empty ring", http.StatusInternalServerError)
		case 1:
			w.WriteHeader(http.StatusBadGateway)
		case 2:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			w.WriteHeader(http.StatusTooManyRequests)
		case 4:
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		case 5:
			w.WriteHeader(260)
		case 6:
			panic(http.ErrAbortHandler)
		case 7: // the push arrives, the response does not
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case 8:
			select {
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
		case 9:
			http.Error(w, "bad request", http.StatusBadRequest)
		default:
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestFaultyProxy(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	c := configFor(l)
	c.URL = loki.URL(faultyProxy(t, l).URL)
	c.Timeout = quantity.Duration(500 * time.Millisecond)
	d := deliver(t, c, func(limits *sink.Limits) {
		limits.BatchBytes = 16 << 10
		limits.MinBackoff, limits.MaxBackoff = 20*time.Millisecond, 200*time.Millisecond
	})
	records := recent(20_000)
	var good, bad []event.Record
	for i := range records {
		if i%1000 == 500 {
			records[i] = makeRecord(i, records[i].Time, func(e *corev1.Event) { e.Message = "poison" })
			bad = append(bad, records[i])
		} else {
			good = append(good, records[i])
		}
	}
	d.add(records...)
	d.finish()
	wantStored(t, l, good, true)
	wantDeadLetters(t, d, bad, "firewall")
}
