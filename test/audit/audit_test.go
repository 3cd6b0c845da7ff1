//go:build e2e

package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

const configuration = `
cluster: %[1]s
drop: ['{reason="Pulled"}']
redact: [{match: 'token=\S+', with: 'token=…'}]
sinks:
%[2]s`

func lokiSink(l *cluster.Loki) string {
	return fmt.Sprintf("  - {name: loki, loki: {url: %q, batch_wait: 200ms}}\n", l.URL())
}

const fileSinks = `  - {name: whole, match: '{type="Warning"}', file: {path: %[1]s/whole.jsonl, max_size: 64KiB, keep: 0, gzip: true}}
  - {name: flat, file: {path: %[1]s/flat.log, format: logfmt}}
  - {name: text, file: {path: %[1]s/text.log, format: text}}
`

// TestAuditOfFiles exports Events to files and audits those, then an edited file.
func TestAuditOfFiles(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	w := newWriter(t, c)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, "live", fmt.Sprintf(fileSinks, dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	w.history() // half of it is written before the start
	ship(t, c.Kubeconfig(), config)
	w.history()
	w.series()
	w.unusual()
	w.addServerEvents()
	dropped := w.count("Pulled")
	audited := auditedBy(t, w.auditor())

	t.Run("complete", func(t *testing.T) {
		wait.Until(t, "the files are complete", func() bool {
			whole, flat := textOf(t, filepath.Join(dir, "whole*.jsonl*")), textOf(t, filepath.Join(dir, "flat.log"))
			return w.all(func(e *corev1.Event) bool {
				return e.Reason == "Pulled" || strings.Contains(flat, " eventRV="+e.ResourceVersion+" ") &&
					(e.Type != corev1.EventTypeWarning || strings.Contains(whole, `"resourceVersion":"`+e.ResourceVersion+`"`))
			})
		})
		r := audited("-A", "--config", config, "--sink", "whole")
		r.want(t, 0, map[string]int{"explained": w.events() - r.Found})
		if r.Explained["not matched by the sink"] == 0 || r.Explained["dropped by rule"] != dropped {
			t.Errorf("explained: %v", r.Explained)
		}
		audited("-A", "--config", config, "--sink", "flat").want(t, 0, map[string]int{"explained": dropped})
		if r := audited("-A", "--config", config, "--sink", "text"); r.code != 2 || !strings.Contains(r.stderr, "the lines have neither uid nor resourceVersion") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	t.Run("edited file", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(dir, "flat.log"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(string(b), "\n")
		latest := w.backOffs()[60:] // later than the second of the first line
		line := func(e *corev1.Event) int {
			return slices.IndexFunc(lines, func(s string) bool {
				return strings.Contains(s, "eventRV="+e.ResourceVersion+" ")
			})
		}
		lines[line(latest[0])] = ""
		lines[line(latest[1])] += lines[line(latest[1])]
		i := line(latest[2])
		lines[i] = strings.Replace(lines[i], "restarting", "removing", 1)
		edited := filepath.Join(dir, "edited.log")
		if err := os.WriteFile(edited, []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(dir, "edited.yaml")
		text := fmt.Sprintf("drop: ['{reason=\"Pulled\"}']\nredact: [{match: 'token=\\S+', with: 'token=…'}]\nsinks: [{name: flat, file: {path: %s}}]\n", edited)
		if err := os.WriteFile(other, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		r := audited("-A", "--config", other)
		r.want(t, 1, map[string]int{"explained": dropped, "missing": 1, "repeated": 1, "altered": 1})
		r.finds(t, "missing", latest[0], "the reason is not known")
		r.finds(t, "repeated", latest[1], "2 times: they do not differ")
		r.finds(t, "altered", latest[2], "another message")
	})
}

// auditedBy returns audit with common arguments.
func auditedBy(t *testing.T, kubeconfig string) func(args ...string) result {
	return func(args ...string) result {
		t.Helper()
		return audit(t, append([]string{"--kubeconfig", kubeconfig, "--settle", "1s", "-o", "json", "--limit", "0"}, args...)...)
	}
}

// TestAudit exports Events to Loki, also in short lines, and audits them, then copies with faults.
func TestAudit(t *testing.T) {
	t.Parallel()
	c, l := cluster.ForTest(t, cluster.Options{}), cluster.LokiForTest(t, cluster.LokiOptions{})
	w := newWriter(t, c)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, "live", lokiSink(l)+
		fmt.Sprintf("  - {name: short, loki: {url: %q, job: short, line: short, batch_wait: 200ms}}\n", l.URL())), 0o644); err != nil {
		t.Fatal(err)
	}

	w.history() // half of it is written before the start
	ship(t, c.Kubeconfig(), config)
	w.history()
	w.series()
	w.unusual()
	w.addServerEvents()
	dropped := w.count("Pulled")
	for _, job := range []string{"hindsight", "short"} {
		wait.Until(t, "Loki has the latest states of job "+job, func() bool {
			have := map[string]bool{}
			for _, e := range entries(t, l, `{cluster="live", job="`+job+`"}`) {
				have[e.Metadata["event_version"]] = true
			}
			return w.all(func(e *corev1.Event) bool { return e.Reason == "Pulled" || have[e.ResourceVersion] })
		})
	}

	// An audit needs no more permissions than these.
	kubeconfig := w.auditor()
	audited := auditedBy(t, kubeconfig)
	in := func(cluster string, more ...string) result {
		t.Helper()
		return audited(append([]string{"-A", "--loki-url", l.URL(), "--cluster", cluster}, more...)...)
	}

	t.Run("complete", func(t *testing.T) {
		r := audited("-A", "--config", config, "--sink", "loki")
		r.want(t, 0, map[string]int{"explained": dropped})
		if r.Compared != w.events() || r.Found != r.Compared-dropped {
			t.Errorf("%d of %d compared, want %d of %d", r.Found, r.Compared, w.events()-dropped, w.events())
		}
		if r.Explained["dropped by rule"] != dropped {
			t.Errorf("explained %v, want %d dropped", r.Explained, dropped)
		}
		audited("-A", "--config", config, "--sink", "short").want(t, 0, map[string]int{"explained": dropped})
		r = audited("-n", "team-b", "--config", config, "--sink", "loki")
		if r.want(t, 0, map[string]int{"explained": r.Explained["dropped by rule"]}); r.Compared == 0 || r.Compared >= w.events() {
			t.Errorf("%d of %d Events are compared in one namespace", r.Compared, w.events())
		}
	})
	t.Run("as text", func(t *testing.T) {
		r := audit(t, "--kubeconfig", kubeconfig, "-A", "--config", config, "--sink", "loki", "--limit", "2")
		if want := fmt.Sprintf("explained  … and %d more dropped by rule", dropped-2); r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("exit code %d, want %q in\n%s", r.code, want, r.stdout)
		}
		if want := fmt.Sprintf("Z: %d Events compared, %d found, 0 missing, 0 repeated, 0 mistimed, 0 altered, %d explained (%[3]d dropped by rule)\n",
			w.events(), w.events()-dropped, dropped); !strings.HasSuffix(r.stdout, want) {
			t.Errorf("want %q at the end of\n%s", want, r.stdout)
		}
	})
	t.Run("without rules", func(t *testing.T) {
		r := in("live")
		// A redacted message differs from that in the API server.
		r.want(t, 1, map[string]int{"missing": dropped, "altered": w.count("Secret")})
	})
	// The entries in Loki, to be copied.
	live := entries(t, l, `{cluster="live", job="hindsight"}`)
	of := func(e *corev1.Event) func(cluster.LokiEntry) bool {
		return func(s cluster.LokiEntry) bool { return s.Metadata["event_version"] == e.ResourceVersion }
	}
	pick := func(t *testing.T, copied []cluster.LokiEntry, e *corev1.Event) *cluster.LokiEntry {
		t.Helper()
		i := slices.IndexFunc(copied, of(e))
		if i < 0 {
			t.Fatalf("version %s is not in Loki", e.ResourceVersion)
		}
		return &copied[i]
	}
	explained := map[string]int{"missing": dropped, "altered": w.count("Secret")} // without the rules
	plus := func(more map[string]int) map[string]int {
		all := maps.Clone(explained)
		for kind, n := range more {
			all[kind] += n
		}
		return all
	}

	t.Run("removed", func(t *testing.T) {
		removed := w.backOffs()[3:8]
		push(t, l, "removed", slices.DeleteFunc(copyOf(live), func(s cluster.LokiEntry) bool {
			return slices.ContainsFunc(removed, func(e *corev1.Event) bool { return of(e)(s) })
		}))
		r := in("removed")
		r.want(t, 1, plus(map[string]int{"missing": 5}))
		for _, e := range removed {
			r.finds(t, "missing", e, "the reason is not known")
		}
	})
	t.Run("repeated", func(t *testing.T) {
		copied, latest := copyOf(live), w.backOffs()
		addCopy := func(e *corev1.Event, change func(*cluster.LokiEntry)) {
			s := copyOf([]cluster.LokiEntry{*pick(t, copied, e)})[0]
			change(&s)
			copied = append(copied, s)
		}
		addCopy(latest[0], func(*cluster.LokiEntry) {}) // Loki deduplicates it
		addCopy(latest[1], func(s *cluster.LokiEntry) { s.Time = s.Time.Add(time.Nanosecond) })
		addCopy(latest[2], func(s *cluster.LokiEntry) { s.Labels["pod"] = "hindsight-1" })
		addCopy(latest[3], func(s *cluster.LokiEntry) { s.Line += " sent=again" })
		addCopy(latest[4], func(s *cluster.LokiEntry) { s.Metadata["pod"] = "hindsight-1" })
		push(t, l, "repeated", copied)
		r := in("repeated")
		r.want(t, 1, plus(map[string]int{"repeated": 4}))
		r.finds(t, "repeated", latest[1], "2 times: they differ in time (")
		r.finds(t, "repeated", latest[2], "2 times: they differ in stream (")
		r.finds(t, "repeated", latest[3], "2 times: they differ in line")
		r.finds(t, "repeated", latest[4], "2 times: they differ in structured metadata")
	})
	t.Run("altered", func(t *testing.T) {
		copied, latest := copyOf(live), w.backOffs()
		late := pick(t, copied, latest[1])
		late.Time = late.Time.Add(5 * time.Minute)
		late = pick(t, copied, latest[2])
		late.Time = late.Time.Add(-20 * time.Minute)
		edited := pick(t, copied, latest[3])
		edited.Line = strings.Replace(edited.Line, "restarting", "removing", 1)
		moved := pick(t, copied, latest[4])
		moved.Labels["namespace"] = "team-z"
		push(t, l, "altered", copied)
		r := in("altered")
		r.want(t, 1, plus(map[string]int{"mistimed": 2, "altered": 2}))
		r.finds(t, "mistimed", latest[1], "5m0s too late")
		r.finds(t, "mistimed", latest[2], "20m0s too early")
		r.finds(t, "altered", latest[3], "another message")
		r.finds(t, "altered", latest[4], `namespace "team-z" instead of "team-a"`)
	})
	t.Run("gap", func(t *testing.T) {
		latest := w.backOffs()
		lost := slices.SortedFunc(slices.Values(latest[5:9]), func(a, b *corev1.Event) int { return cmp.Compare(version(t, a), version(t, b)) })
		first, last := version(t, lost[0]), version(t, lost[3])
		copied := slices.DeleteFunc(copyOf(live), func(s cluster.LokiEntry) bool {
			return slices.ContainsFunc(lost, func(e *corev1.Event) bool { return of(e)(s) })
		})
		record := event.NewGap(event.Gap{
			Namespace: "monitoring", Cause: event.CauseOverflow, MissedAtLeast: 3,
			From: event.Position{Version: first}, // excludes the first of them
			To:   event.Position{Version: last, Time: time.Now()},
		})
		gap := cluster.LokiEntry{
			Time: record.Time, Line: string(format.Encoder{Format: format.Logfmt}.Append(nil, &record)),
			Labels:   map[string]string{"job": "hindsight", "namespace": "monitoring", "reason": "HindsightGap"},
			Metadata: map[string]string{},
		}
		for _, p := range record.AppendMetadata(nil, event.DefaultLabels) {
			gap.Metadata[p.Name] = p.Value
		}
		push(t, l, "gapped", append(copied, gap))
		// The copy has another cluster label; the rules are the same.
		other := filepath.Join(dir, "gapped.yaml")
		if err := os.WriteFile(other, fmt.Appendf(nil, configuration, "gapped", lokiSink(l)), 0o644); err != nil {
			t.Fatal(err)
		}
		r := audited("-n", "team-a", "--config", other, "--sink", "loki") // the gap is in another namespace
		r.want(t, 1, map[string]int{"missing": 1, "explained": 3 + r.Explained["dropped by rule"]})
		r.finds(t, "missing", lost[0], "the reason is not known")
		for _, e := range lost[1:] {
			r.finds(t, "explained", e, fmt.Sprintf("versions %d to %d, overflow", first, last))
		}
		if r.Explained["inside a declared gap"] != 3 {
			t.Errorf("explained %v", r.Explained)
		}
	})
	t.Run("before the first start", func(t *testing.T) {
		newest := copyOf(live)
		slices.SortStableFunc(newest, func(a, b cluster.LokiEntry) int { return a.Time.Compare(b.Time) })
		push(t, l, "late", newest[len(newest)-1:])
		r := in("late")
		r.want(t, 0, map[string]int{"explained": w.events() - 1})
		if r.Explained["before the first start"] != w.events()-1 {
			t.Errorf("explained %v", r.Explained)
		}
	})
	t.Run("errors", func(t *testing.T) {
		nobody := filepath.Join(dir, "nobody")
		if err := c.WriteKubeconfig(nobody, cluster.NobodyToken); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			args []string
			want string
		}{
			"no permission":   {[]string{"--kubeconfig", nobody, "-A", "--loki-url", l.URL()}, "list Events of all namespaces: events is forbidden: "},
			"no Loki":         {[]string{"--kubeconfig", kubeconfig, "-A", "--loki-url", "http://127.0.0.1:1"}, "query loki at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
			"another cluster": {[]string{"--kubeconfig", kubeconfig, "-A", "--settle", "1s", "--loki-url", l.URL(), "--cluster", "nowhere"}, `streams {job="hindsight", cluster="nowhere"} is empty: check address or path, tenant, job and cluster`},
			"unknown flag":    {[]string{"-A", "--every", "1h"}, "unknown flag: --every"},
		} {
			r := audit(t, tt.args...)
			if r.code != 2 || !strings.Contains(r.stderr, tt.want) || strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("%s: exit code %d, want 2 and %q:\n%s", name, r.code, tt.want, r.stderr)
			}
		}
	})
	t.Run("during writes", func(t *testing.T) {
		stop := w.inBackground()
		defer stop()
		r := audit(t, "--kubeconfig", kubeconfig, "-A", "--config", config, "--sink", "loki", "--settle", "2m", "-o", "json")
		if r.code != 0 || r.Missing+r.Repeated+r.Mistimed+r.Altered != 0 {
			t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("repeatedly", func(t *testing.T) {
		stdout := &program.Output{}
		p := program.ForTest(t, program.Options{
			Args:   []string{"audit", "--kubeconfig", kubeconfig, "-A", "--config", config, "--sink", "loki", "--watch", "1s", "-o", "json"},
			Stdout: stdout,
		})
		wait.Until(t, "two results are printed", func() bool { return strings.Count(stdout.String(), "\n") >= 2 })
		for line := range strings.Lines(stdout.String()) {
			var r result
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Compared == 0 || r.Missing != 0 {
				t.Errorf("%v %+v", err, r)
			}
		}
		// Without Loki it logs an error and continues.
		l.Kill()
		wait.Until(t, "the error is logged", func() bool { return p.Logged("audit failed") })
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code, err := p.ExitCode(t.Context()); code != 2 || err != nil {
			t.Errorf("exit code %d, want 2: %v", code, err)
		}
	})
}
