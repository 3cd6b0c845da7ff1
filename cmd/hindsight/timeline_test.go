package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/query/timeline"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

// outageArgs select the recorded outage, as a path from the root of the repository.
var outageArgs = []string{"timeline", "--utc", "--file", "examples/outage/events.json", "--from", "2026-11-21T09:55:00Z", "--to", "2026-11-21T10:05:00Z"}

// The recorded outage, as people read it: of the whole cluster, and of the workload that was hit first.
func TestTimelineOfTheOutage(t *testing.T) {
	clearEnvironment(t)
	golden, err := filepath.Abs("testdata/timeline")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..")
	for name, args := range map[string][]string{
		"cluster.txt":  {"-A"},
		"cluster.md":   {"-A", "-o", "markdown"},
		"ingester.txt": {"-n", "prod-metrics", "--for", "deployment/ingester"},
		"ingester.md":  {"-n", "prod-metrics", "--for", "deployment/ingester", "-o", "markdown"},
		"node.txt":     {"--node", "pool-1-node-3"},
	} {
		t.Run(name, func(t *testing.T) {
			code, got, stderr := call(t, "", append(outageArgs, args...)...)
			if code != 0 || stderr != "" {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			path := filepath.Join(golden, name)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("not %s, which -update writes:\n%s", path, got)
			}
		})
	}
}

// What a post-mortem asks is on the page.
func TestTimelineAnswersAPostMortem(t *testing.T) {
	clearEnvironment(t)
	t.Chdir("../..")
	_, page, _ := call(t, "", append(outageArgs, "-A")...)
	if n := strings.Count(page, "\n"); n > 90 {
		t.Errorf("the page has %d lines", n)
	}
	for question, answer := range map[string]string{
		"who was first?":                   "first preemption  09:59:23  Preempted pod prod-metrics/ingester-79b5894fc8-ksmm5: Preempted by pod dedicated-metrics/ingester-79b5894fc8-f4jw8",
		"because of whom?":                 "6 pods of Deployment prod-metrics/ingester, by Deployment dedicated-metrics/ingester, on 4 nodes",
		"how far did it go?":               "68 pods preempted: 62 of namespace prod-metrics by its own pods, 6 of namespace prod-metrics by dedicated-metrics",
		"what happened on which node?":     "pool-1-node-3   7          10        NodeNotReady 09:59:32, NodeReady 09:59:36",
		"when did it end?":                 "last preemption   09:59:26",
		"what recovered, and when?":        "Deployment prod-metrics/querier        48         43        09:59:23       09:59:32      48       09:59:41    -",
		"what did not recover?":            "StatefulSet team-data/postgres         -          4         09:59:08       10:00:05      -        -           1",
		"what was normal?":                 "routine                   20 pods of Deployment prod-metrics/ingester, on 8 nodes: ScalingReplicaSet, 20 Scheduled",
		"was anything lost?":               "no gaps are recorded for this time",
		"who suffered most?":               "NOT SCHEDULED\nDeployment prod-metrics/querier",
		"who preempted across namespaces?": "6     Deployment prod-metrics/ingester  Deployment dedicated-metrics/ingester  4 nodes",
	} {
		if !strings.Contains(page, answer) {
			t.Errorf("%s not answered by %q in\n%s", question, answer, page)
		}
	}
}

// -o json is the Timeline, with every Event.
func TestTimelineAsJSON(t *testing.T) {
	clearEnvironment(t)
	t.Chdir("../..")
	code, out, stderr := call(t, "", append(outageArgs, "-A", "-o", "json")...)
	var tl timeline.Timeline
	if err := json.Unmarshal([]byte(out), &tl); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr)
	}
	if len(tl.Events) != 725 || tl.Totals.Events != 725 || tl.Version != timeline.Version || tl.Title != "all namespaces" || tl.Query.Source != "examples/outage/events.json" {
		t.Errorf("%d Events, %+v, %+v", len(tl.Events), tl.Totals, tl.Query)
	}
	pods := 0
	for _, p := range tl.Preemptions {
		pods += p.Pods
	}
	if pods != 68 {
		t.Errorf("%d pods preempted", pods)
	}
}

// --around shows what was around a time or an Event.
func TestTimelineAround(t *testing.T) {
	clearEnvironment(t)
	t.Chdir("../..")
	args := []string{"timeline", "--utc", "--file", "examples/outage/events.json", "-A", "--within", "5s"}
	for name, more := range map[string][]string{
		"a time":   {"--around", "2026-11-21T09:59:24Z"},
		"an Event": {"--around", "dedicated-metrics/ingester-79b5894fc8-6654d.18ea070f5fb5f839", "--from", "2026-11-21T09:00:00Z", "--to", "2026-11-21T11:00:00Z"},
		"its uid":  {"--around", "888854a5-8791-43d5-bfa1-031a68ea44af", "--from", "2026-11-21T09:00:00Z", "--to", "2026-11-21T11:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			code, page, stderr := call(t, "", append(args, more...)...)
			if code != 0 || stderr != "" || !strings.Contains(page, "from Sat 2026-11-21 09:59:19 UTC to Sat 2026-11-21 09:59:29 UTC\n") {
				t.Errorf("exit code %d: %s\n%s", code, stderr, page)
			}
		})
	}
}

// An empty result is explained on standard error, and is a valid document.
func TestTimelineOfNothing(t *testing.T) {
	clearEnvironment(t)
	path := eventsFile(t)
	for output, want := range map[string]string{"text": "", "markdown": "# Timeline of all namespaces\n", "json": `{"version":1,"title":"all namespaces",`} {
		code, stdout, stderr := call(t, "", "timeline", "-A", "--file", path, "--to", "2d", "-o", output)
		if code != 0 || !strings.HasPrefix(stdout, want) || want == "" && stdout != "" || !strings.Contains(stderr, "no Events found from ") {
			t.Errorf("-o %s: exit code %d, stderr %q, stdout %q", output, code, stderr, stdout)
		}
	}
}

func TestTimelineUsageErrors(t *testing.T) {
	clearEnvironment(t)
	path := eventsFile(t)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no Loki":           {[]string{"-A"}, exitUsage, "no address of Loki: set --loki-url, HINDSIGHT_LOKI_URL or --config, or read files with --file"},
		"unknown output":    {[]string{"-o", "pdf"}, exitUsage, "-o pdf: want one of " + strings.Join(timelineOutputs, ", ")},
		"no duration":       {[]string{"--within", "long"}, exitUsage, `--within: "long" is not a duration; examples are 30m, 12h, 7d and 2w`},
		"a time and a time": {[]string{"--file", path, "--around", "2h", "--since", "1h"}, exitUsage, "--around with a time is a range: remove --from, --to and --since"},
		"no kind":           {[]string{"--file", path, "--for", "web"}, exitUsage, `--for: "web" is not an object; an example is pod/web-0`},
		"an argument":       {[]string{"web"}, exitUsage, `unknown command "web" for "hindsight timeline"`},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := call(t, "", append([]string{"timeline"}, c.args...)...)
			if code != c.code || stderr != "hindsight: "+c.want+"\n" || out != "" {
				t.Errorf("exit code %d, stdout %q, stderr\n%s\nwant %d and\n%s", code, out, stderr, c.code, c.want)
			}
		})
	}
	t.Run("no such Event", func(t *testing.T) {
		code, _, stderr := call(t, "", "timeline", "--file", path, "--around", "event/absent.1")
		if code != exitFailure || !strings.HasPrefix(stderr, "hindsight: --around: no Event event/absent.1 found from ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
}

// The examples of the help are valid: with a file, they fail at most because it has no such Event.
func TestTimelineExamples(t *testing.T) {
	clearEnvironment(t)
	path := eventsFile(t)
	examples := 0
	for text := range strings.Lines(timelineExamples) {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		examples++
		text, _, _ = strings.Cut(strings.ReplaceAll(text, "/var/log/hindsight/events.jsonl", path), " > ")
		args := words(t, text)[1:]
		if !strings.Contains(text, "--file") {
			args = append(args, "--file", path)
		}
		if code, _, stderr := call(t, "", args...); code != 0 && !strings.Contains(stderr, "no Event event/") {
			t.Errorf("%s: exit code %d: %s", text, code, stderr)
		}
	}
	if examples < 5 {
		t.Errorf("%d examples", examples)
	}
}

// As a kubectl plugin it is kubectl hindsight timeline.
func TestTimelineOfThePlugin(t *testing.T) {
	clearEnvironment(t)
	var out, errs buffer
	code := executeAs(t.Context(), "kubectl-hindsight", []string{"timeline", "-n", "team-a", "--file", eventsFile(t)}, strings.NewReader(""), &out, &errs)
	if code != 0 || !strings.HasPrefix(out.String(), "Timeline of namespace team-a\n") || !strings.Contains(out.String(), "BackOff") {
		t.Errorf("exit code %d: %s%s", code, errs.String(), out.String())
	}
}

func TestTimelineCompletion(t *testing.T) {
	clearEnvironment(t)
	for args, want := range map[string]string{
		"-o m":                                  "markdown :4",
		"--namespace t --file " + eventsFile(t): "team-a :4",
	} {
		flag, rest, _ := strings.Cut(args, " ")
		value, more, _ := strings.Cut(rest, " ")
		code, stdout, stderr := call(t, "", append(append([]string{"__complete", "timeline"}, strings.Fields(more)...), flag, value)...)
		if got := strings.Join(strings.Fields(stdout), " "); code != 0 || got != want {
			t.Errorf("%s: exit code %d: %s, want %s: %s", args, code, got, want, stderr)
		}
	}
}
