//go:build e2e

package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// made returns an Event. Without a version, Hindsight stores it under a whole second.
func made(i int, at time.Time, version, message string) corev1.Event {
	return corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "made", Name: fmt.Sprintf("e-%06d", i), UID: types.UID(fmt.Sprintf("uid-%06d", i)), ResourceVersion: version},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "made", Name: fmt.Sprintf("pod-%06d", i)},
		Reason:         "Made", Message: message, Type: "Normal", Count: 1,
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at),
		Source: corev1.EventSource{Component: "test"},
	}
}

// TestLongRanges stores Events of forty days, more Events of the same time than fit into a page,
// and an Event with many states. Each must be found once, in files and in Loki with its default
// limits.
func TestLongRanges(t *testing.T) {
	t.Parallel()
	const spread, ties, repeats = 6000, 2500, 150
	now := time.Now().Truncate(time.Second)
	start := now.Add(-40 * 24 * time.Hour)
	var events []corev1.Event
	for i := range spread {
		at := start.Add(time.Duration(i) * (39 * 24 * time.Hour / spread))
		events = append(events, made(i, at, fmt.Sprint(i+1), "spread"))
		if i%(spread/repeats) == 0 { // another state of one Event
			e := made(999999, at, fmt.Sprint(i+2), "repeated")
			e.Count = int32(1 + i/(spread/repeats))
			e.FirstTimestamp = metav1.NewTime(start)
			events = append(events, e)
		}
	}
	for i := range ties {
		events = append(events, made(spread+i, now.Add(-time.Hour), "", "tied"))
	}
	for name, storeEvents := range map[string]func(*testing.T) (source []string){
		"Loki": func(t *testing.T) []string {
			l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{"reject_old_samples": false}})
			config := configure(t, lokiSink(l, ""))
			store(t, config, events)
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			return []string{"--config", config}
		},
		"files": func(t *testing.T) []string {
			path := t.TempDir() + "/events.jsonl"
			store(t, configure(t, "file: {path: "+path+", format: logfmt, max_size: 1MiB, keep: 0, gzip: true}"), events)
			return []string{"--file", path}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := storeEvents(t)
			check := func(want int, args ...string) []string {
				t.Helper()
				got := runQuery(t, append(append(args, source...), "-n", "made", "--no-headers", "-o", "name")...)
				seen := map[string]bool{}
				for _, name := range got {
					seen[name] = true
				}
				if len(got) != want {
					t.Errorf("%s: %d rows, %d distinct, want %d", strings.Join(args, " "), len(got), len(seen), want)
				}
				return got
			}
			check(spread+ties+repeats, "--since", "45d", "--states")
			got := check(spread+ties+1, "--since", "45d")
			check(ties, "--since", "45d", "--grep", "^tied$")
			newest := check(ties+10, "--since", "45d", "--limit", fmt.Sprint(ties+10))
			if len(got) > len(newest) && !sameSet(newest, got[len(got)-len(newest):]) {
				t.Error("--limit does not print the newest")
			}
			one := runQuery(t, append([]string{"-n", "made", "--since", "45d", "--for", "pod/pod-999999", "-o", "json"}, source...)...)
			var record struct {
				Count     int
				FirstSeen time.Time
			}
			if len(one) != 1 || json.Unmarshal([]byte(one[0]), &record) != nil || record.Count != repeats || !record.FirstSeen.Equal(start) {
				t.Errorf("the Event with many states is printed as %q", one)
			}
		})
	}
}

func sameSet(a, b []string) bool {
	in := map[string]bool{}
	for _, s := range a {
		in[s] = true
	}
	for _, s := range b {
		if !in[s] {
			return false
		}
	}
	return len(a) == len(b)
}

// TestResponsesOver4MiB checks a query whose response would exceed 4 MiB: Loki would close the
// connection after a minute.
func TestResponsesOver4MiB(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	const n = 900
	now := time.Now().Truncate(time.Second)
	var events []corev1.Event
	for i := range n {
		events = append(events, made(i, now.Add(time.Duration(i-n)*time.Second), fmt.Sprint(i+1), strings.Repeat("long ", 1500)))
	}
	config := configure(t, lokiSink(l, ""))
	store(t, config, events)
	if got := runQuery(t, "--config", config, "-n", "made", "-o", "name"); len(got) != n {
		t.Errorf("%d rows, want %d", len(got), n)
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	config := configure(t, lokiSink(l, ", tenant_id: a"))
	store(t, config, []corev1.Event{made(1, time.Now(), "1", "here")})
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no tenant":        {[]string{"--loki-url", l.URL()}, 1, "responded 401: no org id; it is multi-tenant: name a tenant"},
		"another tenant":   {[]string{"--loki-url", l.URL(), "--tenant", "b"}, 0, "has no entries of {job=\"hindsight\"} in this range: check address, tenant (b), job and cluster"},
		"no match":         {[]string{"--config", config, "-n", "elsewhere"}, 0, `by {job="hindsight", cluster="test", namespace="elsewhere"}; {job="hindsight", cluster="test"} has entries in this range (streams: 1), but none that match`},
		"another time":     {[]string{"--config", config, "-A", "--to", "2h"}, 0, "has no entries of"},
		"no server":        {[]string{"--loki-url", "http://127.0.0.1:1"}, 1, "connection refused"},
		"no address":       {nil, 2, "no address of Loki"},
		"refused selector": {[]string{"--loki-url", l.URL(), "--tenant", "a", "-A", "-l", `{job=~".*"}`}, 1, "responded 400: parse error"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := hindsight(t, "", append([]string{"query"}, c.args...)...)
			if code != c.code || stdout != "" || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d, %q", code, stdout, stderr, c.code, c.want)
			}
		})
	}
}

// TestBurst stores thousands of Events for each second, whose times differ by nanoseconds. Each
// must be printed once. With logcli in PATH and -v, the test logs the duration of both programs;
// HINDSIGHT_TEST_BURST sets the number of seconds.
func TestBurst(t *testing.T) {
	seconds, each := 4, 3625
	if n, err := strconv.Atoi(os.Getenv("HINDSIGHT_TEST_BURST")); err == nil {
		seconds = n
	}
	l := cluster.LokiForTest(t, cluster.LokiOptions{Limits: map[string]any{
		"ingestion_rate_mb": 1000, "ingestion_burst_size_mb": 1000, "per_stream_rate_limit": "1GB", "per_stream_rate_limit_burst": "1GB",
	}})
	start := time.Now().Truncate(time.Second).Add(-time.Hour)
	var events []corev1.Event
	for i := range seconds * each {
		e := made(i, start.Add(time.Duration(i/each)*time.Second), fmt.Sprint(1_000_000+2*i), fmt.Sprint("burst ", i))
		events = append(events, e)
		if i%10 == 0 { // annotated: a new version with the same time and count
			e.ResourceVersion, e.Message = fmt.Sprint(1_000_001+2*i), e.Message+", annotated"
			events = append(events, e)
		}
	}
	config := configure(t, lokiSink(l, ""))
	store(t, config, events)
	from, to := start.Format(time.RFC3339), start.Add(time.Duration(seconds)*time.Second).Format(time.RFC3339)

	began := time.Now()
	got := runQuery(t, "--config", config, "-A", "--from", from, "--to", to, "-o", "logfmt")
	duration := time.Since(began)
	seen := map[string]bool{}
	annotated := 0
	for _, line := range got {
		_, uid, _ := strings.Cut(line, " event_uid=")
		uid, _, _ = strings.Cut(uid, " ")
		seen[uid] = true
		if strings.Contains(line, ", annotated") {
			annotated++
		}
	}
	if n := seconds * each; len(got) != n || len(seen) != n || annotated != (n+9)/10 {
		t.Errorf("%d rows of %d Events, %d annotated; want %d and %d", len(got), len(seen), annotated, n, (n+9)/10)
	}
	newest := runQuery(t, "--config", config, "-A", "--from", from, "--to", to, "-o", "logfmt", "--limit", "1000")
	if want := got[max(0, len(got)-1000):]; !slices.Equal(newest, want) {
		t.Errorf("--limit 1000 prints %d rows, which are not the last ones", len(newest))
	}
	told, cost := tell(t, "--config", config, "-n", "made", "--from", from, "--to", to)
	if told.Totals.Events != seconds*each {
		t.Errorf("the timeline has %d Events, want %d", told.Totals.Events, seconds*each)
	}
	t.Logf("timeline of %d Events about as many objects: %s", told.Totals.Events, cost)
	logcli, err := exec.LookPath("logcli")
	if err != nil {
		return
	}
	began = time.Now()
	cmd := exec.CommandContext(t.Context(), logcli, "query", `{job="hindsight"}`, "--addr="+l.URL(), "--from="+from, "--to="+to, "--limit=1000000", "--forward", "--quiet")
	if out, err := cmd.Output(); err != nil || bytes.Count(out, []byte("\n")) != len(events) {
		t.Logf("logcli: %v, %d lines", err, bytes.Count(out, []byte("\n")))
	}
	t.Logf("%d entries: hindsight %s, logcli %s", len(events), duration.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}
