//go:build e2e

package query

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/query/timeline"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// TestTimeline reads the timeline of the recorded outage from files and from Loki, in several formats:
// it is the same story from each.
func TestTimeline(t *testing.T) {
	t.Parallel()
	events := outage(t)
	l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	path := t.TempDir() + "/events.jsonl"
	store(t, configure(t, fmt.Sprintf("file: {path: %s, max_size: 64KiB, keep: 0, gzip: true}", path)), events)
	want := timelineText(t, "-A", "--file", path)
	for _, part := range []string{
		"\n68 pods preempted: 62 of namespace prod-metrics by its own pods, 6 of namespace prod-metrics by dedicated-metrics\n",
		"6 pods of Deployment prod-metrics/ingester, by Deployment dedicated-metrics/ingester, on 4 nodes\n",
	} {
		if !strings.Contains(want, part) {
			t.Errorf("no %q in\n%s", part, want)
		}
	}
	for _, layout := range []string{"format: logfmt", "format: json", "format: eventrouter", "format: logfmt, line: short"} {
		t.Run(layout, func(t *testing.T) {
			tenant := strings.NewReplacer(": ", "-", ", ", "-").Replace(layout)
			l.Tenant = tenant
			config := configure(t, lokiSink(l, ", tenant_id: "+tenant+", "+layout))
			store(t, config, events)

			if got := timelineText(t, "-A", "--config", config); story(got) != story(want) {
				t.Errorf("from Loki:\n%s\nfrom files:\n%s", story(got), story(want))
			}
			stdout, stderr, code := hindsight(t, "", "timeline", "-n", "prod-metrics", "--for", "deployment/ingester", "--since", "1h", "-o", "json", "--config", config)
			var tl timeline.Timeline
			if err := json.Unmarshal([]byte(stdout), &tl); code != 0 || err != nil {
				t.Fatalf("exit code %d, %v: %s", code, err, stderr)
			}
			pods := 0
			for _, p := range tl.Preemptions {
				if tl.Name(p.Victim) == "Deployment ingester" && p.Preemptor != timeline.None && tl.Name(p.Preemptor) == "Deployment dedicated-metrics/ingester" {
					pods += p.Pods
				}
			}
			if pods != 6 || tl.Totals.Requests == 0 || tl.Totals.Bytes == 0 || !strings.HasPrefix(tl.Query.Source, "Loki http://") {
				t.Errorf("%d pods preempted by the other namespace; %+v, source %s", pods, tl.Totals, tl.Query.Source)
			}
		})
	}
	for output, begin := range map[string]string{"markdown": "# Timeline of namespace prod-metrics\n", "html": "<!doctype html>"} {
		stdout, stderr, code := hindsight(t, "", "timeline", "-n", "prod-metrics", "--since", "1h", "-o", output, "--file", path)
		if code != 0 || stderr != "" || !strings.HasPrefix(strings.ToLower(stdout), strings.ToLower(begin)) {
			t.Errorf("-o %s: exit code %d: %s%.200s", output, code, stderr, stdout)
		}
	}
}

func timelineText(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := hindsight(t, "", append([]string{"timeline", "--since", "1h"}, args...)...)
	if code != 0 {
		t.Fatalf("hindsight timeline %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// story is a page without its head, which names the source, and without what was left out.
func story(page string) string {
	_, page, _ = strings.Cut(page, "WHAT HAPPENED\n")
	page, _, _ = strings.Cut(page, "LEFT OUT\n")
	return page
}
