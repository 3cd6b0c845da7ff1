package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// The labels and max_streams of the configuration apply to a replay: Events with a different
// component each are all delivered, in few streams.
func TestReplayLimitsLabelValues(t *testing.T) {
	var (
		mu      sync.Mutex // guards the fields below
		streams = map[string]int{}
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		body, err := snappy.Decode(nil, body)
		if err != nil {
			t.Error(err)
		}
		_, _, n := protowire.ConsumeTag(body)
		stream, _ := protowire.ConsumeBytes(body[n:])
		_, _, n = protowire.ConsumeTag(stream)
		labels, m := protowire.ConsumeString(stream[n:])
		entries := 0
		for rest := stream[n+m:]; len(rest) > 0; entries++ {
			_, _, n := protowire.ConsumeTag(rest)
			_, m := protowire.ConsumeBytes(rest[n:])
			rest = rest[n+m:]
		}
		mu.Lock()
		streams[labels] += entries
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
cluster: test
max_streams: 20
sinks: [{name: loki, loki: {url: %q, batch_wait: 0s, labels: {namespace: namespace, reason: reason, by: component}}}]
`, server.URL), 0o644); err != nil {
		t.Fatal(err)
	}
	var in strings.Builder
	const events = 300
	for i := range events {
		fmt.Fprintf(&in, `{"kind":"Event","metadata":{"name":"e%d","namespace":"kube-system","uid":"%d","resourceVersion":"%d"},`+
			`"reason":"LeaderElection","source":{"component":"controller_%d"},"lastTimestamp":"2026-03-06T11:00:00Z"}`+"\n", i, i, i+1, i)
	}
	code, _, stderr := call(t, in.String(), "replay", "-", "--config", config)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	mu.Lock()
	defer mu.Unlock()
	total := 0
	for _, n := range streams {
		total += n
	}
	if total != events || len(streams) > 20+1 || streams[`{by="other", cluster="test", job="hindsight", namespace="kube-system", reason="LeaderElection"}`] == 0 {
		t.Errorf("%d entries in %d streams, want %d in at most 21, most of them in one with by=\"other\": %v", total, len(streams), events, streams)
	}
	if n := strings.Count(stderr, "max_streams is reached"); n != 1 || !strings.Contains(stderr, "sink=loki") {
		t.Errorf("%d warnings, want 1 with the name of the sink:\n%s", n, stderr)
	}
}
