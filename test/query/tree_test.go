//go:build e2e

package query

import (
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// TestTree checks that --tree and --resolve find the same in Loki, in each format and with and
// without structured metadata, as in the recorded file.
func TestTree(t *testing.T) {
	t.Parallel()
	events := outage(t)
	path := t.TempDir() + "/events.jsonl"
	store(t, configure(t, "file: {path: "+path+", format: eventrouter}"), events)
	l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	queries := map[string]struct {
		args []string
		rows int
		want string // in the output
	}{
		"a Deployment": {[]string{"-n", "prod-metrics", "--for", "deploy/ingester", "--tree"}, 201, ""},
		"a Deployment's Warnings of one reason": {
			[]string{"-n", "prod-metrics", "--for", "deploy/ingester", "--tree", "--types", "Warning", "--reason", "Unhealthy"}, 20, "",
		},
		"a StatefulSet with a claim": {[]string{"-n", "team-data", "--for", "sts/postgres", "--tree"}, 6, "PersistentVolumeClaim/data-postgres-0"},
		"a CronJob":                  {[]string{"-n", "team-data", "--for", "cj/usage-report", "--tree"}, 8, "Saw completed job: usage-report-"},
		"a pod":                      {[]string{"-n", "team-data", "--for", "pod/postgres-0", "--tree"}, 3, ""},
		"preemptors in another namespace": {
			[]string{"-n", "prod-metrics", "--reason", "Preempted", "--resolve"}, 68, "Preempted by pod dedicated-metrics/ingester-",
		},
	}
	for _, format := range []string{"logfmt", "json", "eventrouter", "short", "bare"} {
		t.Run(format, func(t *testing.T) {
			l.Tenant = format
			options := ", tenant_id: " + format
			switch format {
			case "short":
				options += ", line: short"
			case "bare":
				options += ", structured_metadata: false"
			default:
				options += ", format: " + format
			}
			config := configure(t, lokiSink(l, options))
			store(t, config, events)
			for _, args := range [][]string{
				{"-n", "prod-metrics", "--for", "deploy/ingester"}, {"-n", "dedicated-metrics"}, {"--node", "pool-1-node-3"}, {"-A"},
			} {
				t.Run("timeline "+strings.Join(args, " "), func(t *testing.T) {
					ofFile, _ := tell(t, append(args, "--file", path)...)
					ofLoki, _ := tell(t, append(args, "--config", config)...)
					ofFile.Totals.Bytes, ofFile.Totals.Requests = ofLoki.Totals.Bytes, ofLoki.Totals.Requests
					if ofLoki.Totals != ofFile.Totals || len(ofLoki.Preemptions) != len(ofFile.Preemptions) || len(ofLoki.Omissions) != len(ofFile.Omissions) {
						t.Errorf("of Loki %+v, %d preemptions, %+v; of the file %+v, %d, %+v",
							ofLoki.Totals, len(ofLoki.Preemptions), ofLoki.Omissions, ofFile.Totals, len(ofFile.Preemptions), ofFile.Omissions)
					}
					if ofLoki.Totals.Requests == 0 || ofLoki.Totals.Bytes == 0 {
						t.Error("what was fetched is not told")
					}
				})
			}
			for name, q := range queries {
				t.Run(name, func(t *testing.T) {
					args := append(slices.Clone(q.args), "--no-headers", "--times")
					fromFile := runQuery(t, append(args, "--file", path)...)
					if len(fromFile) != q.rows || !strings.Contains(strings.Join(fromFile, "\n"), q.want) {
						t.Errorf("%d rows of the file, want %d with %q", len(fromFile), q.rows, q.want)
					}
					got := runQuery(t, append(args, "--config", config)...)
					// Events of the same time come in any order.
					slices.Sort(fromFile)
					slices.Sort(got)
					if !slices.Equal(got, fromFile) {
						t.Errorf("%d rows of Loki differ from the %d of the file", len(got), len(fromFile))
					}
				})
			}
		})
	}
	t.Run("the newest", func(t *testing.T) {
		all := runQuery(t, "-n", "prod-metrics", "--for", "deploy/ingester", "--tree", "--file", path, "-o", "json")
		newest := runQuery(t, "-n", "prod-metrics", "--for", "deploy/ingester", "--tree", "--file", path, "-o", "json", "--limit", "7")
		if !slices.Equal(newest, all[len(all)-7:]) {
			t.Errorf("--limit 7 prints %d rows, which are not the last ones", len(newest))
		}
	})
}

func TestTreeFlags(t *testing.T) {
	for name, c := range map[string]struct{ args, want string }{
		"no object": {"--tree", "--tree needs an object: set --for"},
		"a node":    {"--tree --for node/a", "a node owns no objects"},
		"watching":  {"--tree --for pod/a -w", "remove --watch"},
		"states":    {"--tree --for pod/a --states", "remove --states"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, code := hindsight(t, "", append([]string{"query", "--loki-url", "http://127.0.0.1:1"}, strings.Fields(c.args)...)...)
			if code == 0 || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d, %s", code, stderr)
			}
		})
	}
}
