//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// The canary Event arrives in Loki and is found with the query for the format of the
// sink, also after a reload changes the format.
func TestCanaryIsFound(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	config := func(more string) string {
		return fmt.Sprintf("cluster: %s\ncanary: {enabled: true, query_url: %q}\nsinks:\n", clusterName, l.URL()) + lokiSink(l.URL(), more)
	}
	p := start(t, c.Kubeconfig(), config(""))
	found := func(stage string) (seconds float64) {
		t.Helper()
		value := regexp.MustCompile(`(?m)^hindsight_canary_` + stage + `_seconds (\S+)$`)
		wait.Until(t, "the canary has arrived in "+stage, func() bool {
			before := seconds
			_, body := p.get("/metrics")
			if m := value.FindStringSubmatch(body); m != nil {
				var err error
				if seconds, err = strconv.ParseFloat(m[1], 64); err != nil {
					t.Fatal(err)
				}
			}
			return seconds > 0 && seconds == before // the value grows until the canary arrives
		})
		return seconds
	}
	t.Logf("through the watch after %.3f s, in Loki after %.3f s", found("watch"), found("loki"))
	for i, more := range []string{", structured_metadata: false", ", structured_metadata: false, format: eventrouter", ", line: short"} {
		replaceConfig(t, p, config(more))
		wait.Until(t, "configuration reloaded", func() bool { return strings.Count(p.Log(), "configuration reloaded") > i })
		t.Logf("with%s: in Loki after %.3f s", more, found("loki"))
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
