package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// The labels and max_streams of the configuration apply to a replay: Events with a different
// component each are all delivered, in few streams.
func TestReplayLimitsLabelValues(t *testing.T) {
	loki := fakeloki.Start(t, fakeloki.Options{})
	loki.ScriptPushes(fakeloki.Respond(http.StatusNoContent, ""))
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
cluster: test
max_streams: 20
sinks: [{name: loki, loki: {url: %q, batch_wait: 0s, labels: {namespace: namespace, reason: reason, by: component}}}]
`, loki.URL), 0o644); err != nil {
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
	total, streams := 0, map[string]int{}
	for _, push := range loki.Pushes() {
		for _, stream := range push.Streams {
			streams[stream.Labels] += len(stream.Entries)
			total += len(stream.Entries)
		}
	}
	if total != events || len(streams) > 20+1 || streams[`{by="other", cluster="test", job="hindsight", namespace="kube-system", reason="LeaderElection"}`] == 0 {
		t.Errorf("%d entries in %d streams, want %d in at most 21, most of them in one with by=\"other\": %v", total, len(streams), events, streams)
	}
	if n := strings.Count(stderr, "max_streams is reached"); n != 1 || !strings.Contains(stderr, "sink=loki") {
		t.Errorf("%d warnings, want 1 with the name of the sink:\n%s", n, stderr)
	}
}
