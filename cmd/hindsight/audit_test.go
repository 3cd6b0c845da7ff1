package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// auditServers are an API server with one Event and a Loki that has it, unless the test changes
// that.
type auditServers struct {
	api, loki string
	store     *fakeloki.Server
	event     *corev1.Event
	line      string // empty: Loki does not have it
	asked     chan string
}

func newAuditServers(t *testing.T) *auditServers {
	t.Helper()
	now := metav1.NewTime(time.Now().Add(-10 * time.Minute).Truncate(time.Second))
	s := &auditServers{asked: make(chan string, 1)}
	s.event = &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "team-a", Name: "web-0.17a", UID: "u-1", ResourceVersion: "77", CreationTimestamp: now},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "web-0", Namespace: "team-a"},
		Reason:         "Pulled", Message: "with token=abc", Type: "Normal", LastTimestamp: now, FirstTimestamp: now, Count: 1,
	}
	s.line = `name=web-0 kind=Pod eventRV=77 reason=Pulled type=Normal count=1 msg="with token=abc" event=web-0.17a event_uid=u-1`
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		select {
		case s.asked <- req.URL.Path:
		default: // not expected by the test
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.EventList{
			TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "80"}, Items: []corev1.Event{*s.event},
		})
	}))
	t.Cleanup(api.Close)
	s.store = fakeloki.Start(t, fakeloki.Options{})
	s.api, s.loki = api.URL, s.store.URL
	return s
}

// fill stores the line and a line of another Event.
func (s *auditServers) fill() {
	labels := map[string]string{"job": "hindsight", "cluster": "test", "namespace": s.event.Namespace, "reason": "Pulled"}
	other := `name=web-1 kind=Pod eventRV=5 reason=Pulled type=Normal count=1 msg="" event=web-1.17a event_uid=u-2`
	s.store.Store(fakeloki.Entry{Time: s.event.LastTimestamp.Add(-time.Minute), Line: other, Labels: labels})
	if s.line != "" {
		s.store.Store(fakeloki.Entry{Time: s.event.LastTimestamp.Add(77), Line: s.line, Labels: labels})
	}
}

func TestAudit(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HINDSIGHT_LOKI_URL", "")
	config := func(more string) func(t *testing.T, s *auditServers) []string {
		return func(t *testing.T, s *auditServers) []string {
			path := filepath.Join(t.TempDir(), "config.yaml")
			text := fmt.Sprintf("cluster: test\nsinks:\n  - {name: logs, loki: {url: %q}}\n  - {name: out, match: '{type=\"Warning\"}', loki: {url: %[1]q}}\n%s", s.loki, more)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return []string{"--config", path}
		}
	}
	tests := map[string]struct {
		args   []string
		config func(*testing.T, *auditServers) []string // instead of --loki-url
		change func(s *auditServers)
		code   int
		stdout string // a suffix
		stderr string
		path   string // of the request to the API server
	}{
		"all is there": {
			args: []string{"-A"}, path: "/api/v1/events",
			stdout: ": 1 Event compared, 1 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained\n",
		},
		"the namespace of kubectl": {
			change: func(s *auditServers) { s.event.Namespace = "default" },
			path:   "/api/v1/namespaces/default/events", stdout: "0 explained\n",
		},
		"one namespace": {args: []string{"-n", "team-a"}, path: "/api/v1/namespaces/team-a/events", stdout: "0 explained\n"},
		"JSON": {
			args:   []string{"-A", "-o", "json"},
			stdout: `"compared":1,"found":1,"missing":0,"repeated":0,"mistimed":0,"altered":0,"explained":{},"findings":[]}` + "\n",
		},
		"missing": {
			args: []string{"-A"}, change: func(s *auditServers) { s.line = "" }, code: 1,
			stdout: "1 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained\n",
			stderr: "hindsight: the stored Events differ from those of the API server\n",
		},
		"dropped by a rule": {
			args: []string{"-A", "--sink", "logs"}, config: config("drop: ['{reason=\"Pulled\"}']\n"), change: func(s *auditServers) { s.line = "" },
			stdout: "0 missing, 0 repeated, 0 mistimed, 0 altered, 1 explained (1 dropped by rule)\n",
		},
		"not matched": {
			args: []string{"-A", "--sink", "out"}, config: config(""), change: func(s *auditServers) { s.line = "" },
			stdout: "1 explained (1 not matched by the sink)\n",
		},
		"redacted": {
			args: []string{"-A", "--sink", "logs"}, config: config("redact: [{match: 'token=(\\w)\\w+', with: 'token=$1…'}]\n"),
			change: func(s *auditServers) { s.line = strings.Replace(s.line, "abc", "a…", 1) },
			stdout: "1 found, 0 missing, 0 repeated, 0 mistimed, 0 altered, 0 explained\n",
		},
		"several sinks": {
			args: []string{"-A"}, config: config(""), code: 2, stderr: "several readable sinks; choose one with --sink: logs, out\n",
		},
		"no Loki named": {args: []string{"-A"}, config: func(*testing.T, *auditServers) []string { return nil }, code: 2, stderr: "no address of Loki: set --loki-url"},
		"a file that is not there": {
			args: []string{"-A", "--file", "/nowhere/events.jsonl"}, config: func(*testing.T, *auditServers) []string { return nil },
			code: 2, stderr: "hindsight: read the stored entries: open /nowhere/events.jsonl: ",
		},
		"no such output":     {args: []string{"-A", "-o", "yaml"}, code: 2, stderr: `hindsight: --output: unknown format "yaml", want text or json` + "\n"},
		"a bad interval":     {args: []string{"-A", "--watch", "0s"}, code: 2, stderr: "hindsight: --watch must be positive\n"},
		"a bad settle":       {args: []string{"-A", "--settle", "-1s"}, code: 2, stderr: "hindsight: --settle must not be negative\n"},
		"a bad limit":        {args: []string{"-A", "--limit", "-1"}, code: 2, stderr: "hindsight: --limit must not be negative\n"},
		"both namespaces":    {args: []string{"-A", "-n", "a"}, code: 2, stderr: "none of the others can be; [all-namespaces namespace] were all set\n"},
		"too many arguments": {args: []string{"-A", "pods"}, code: 2, stderr: "unknown command \"pods\""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newAuditServers(t)
			if tt.change != nil {
				tt.change(s)
			}
			s.fill()
			args := append([]string{"audit", "--server", s.api}, tt.args...)
			if tt.config != nil {
				args = append(args, tt.config(t, s)...)
			} else {
				args = append(args, "--loki-url", s.loki)
			}
			var stdout, stderr bytes.Buffer
			code := execute(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.HasSuffix(stdout.String(), tt.stdout) || tt.stdout == "" && stdout.Len() > 0 {
				t.Errorf("stdout\n%s\nwant\n%s", stdout.String(), tt.stdout)
			}
			if !strings.Contains(stderr.String(), tt.stderr) || tt.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stderr\n%s\nwant\n%s", stderr.String(), tt.stderr)
			}
			if tt.path != "" {
				if path := <-s.asked; path != tt.path {
					t.Errorf("requested %s, want %s", path, tt.path)
				}
			}
		})
	}
}

// An interrupted --watch has the exit code of the worst result.
func TestAuditWatch(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	for stored, want := range map[bool]int{true: 0, false: 1} {
		s := newAuditServers(t)
		if !stored {
			s.line = ""
		}
		s.fill()
		ctx, cancel := context.WithCancel(t.Context())
		results, stdout := io.Pipe()
		code := make(chan int, 1)
		var stderr bytes.Buffer
		go func() {
			code <- execute(ctx, []string{"audit", "-A", "--server", s.api, "--loki-url", s.loki, "--watch", "1ms", "-o", "json"}, strings.NewReader(""), stdout, &stderr)
			stdout.Close()
		}()
		dec := json.NewDecoder(results)
		for range 3 {
			var r struct{ Compared, Missing int }
			if err := dec.Decode(&r); err != nil || r.Compared != 1 || r.Missing != want {
				t.Fatalf("%v %+v", err, r)
			}
		}
		cancel()
		go io.Copy(io.Discard, results)
		if got := <-code; got != want {
			t.Errorf("exit code %d, want %d\n%s", got, want, stderr.String())
		}
	}
}

// The examples of the help are valid command lines.
func TestAuditExamples(t *testing.T) {
	var lines []string
	for line := range strings.Lines(auditExamples) {
		if args, ok := strings.CutPrefix(strings.TrimSpace(line), "hindsight audit "); ok {
			lines = append(lines, args)
		}
	}
	if len(lines) != 4 {
		t.Fatalf("examples %q", lines)
	}
	for _, line := range lines {
		cmd := auditCommand()
		if err := cmd.ParseFlags(strings.Fields(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if err := cmd.ValidateFlagGroups(); err != nil || len(cmd.Flags().Args()) > 0 {
			t.Errorf("%s: %v, arguments %q", line, err, cmd.Flags().Args())
		}
	}
	var help bytes.Buffer
	if code := execute(t.Context(), []string{"audit", "--help"}, strings.NewReader(""), &help, io.Discard); code != 0 || !strings.Contains(help.String(), auditExamples) {
		t.Errorf("exit code %d\n%s", code, help.String())
	}
	if !slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, "--watch") }) {
		t.Error("no example shows --watch")
	}
}
