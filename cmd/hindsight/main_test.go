package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/fakeapi"
	"github.com/hindsight-events/hindsight/test/fakeloki"
	"github.com/hindsight-events/hindsight/test/wait"
)

// buffer is a bytes.Buffer that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// call runs a command line.
func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, log buffer
	code = execute(t.Context(), args, strings.NewReader(stdin), &out, &log)
	return code, out.String(), log.String()
}

func TestUsageErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("sinks:\n  - name: a\n    stdout: {format: xml}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":    {[]string{"watch"}, `hindsight: unknown command "watch" for "hindsight"`},
		"unknown flag":       {[]string{"run", "--verbose"}, "hindsight: unknown flag: --verbose"},
		"extra argument":     {[]string{"run", "now"}, `hindsight: unknown command "now" for "hindsight run"`},
		"no file to replay":  {[]string{"replay"}, "hindsight: replay needs one file, or - for stdin"},
		"missing file":       {[]string{"replay", "/absent.json"}, "hindsight: replay: open /absent.json: no such file or directory"},
		"missing config":     {[]string{"check", "--config", "/absent.yaml"}, "hindsight: read configuration: open /absent.yaml: no such file or directory"},
		"invalid config":     {[]string{"run", "--config", bad}, "hindsight: " + bad + `:3: sinks[0].stdout.format: unknown format "xml": want one of eventrouter, json, logfmt, text`},
		"no cluster":         {[]string{"run"}, "hindsight: connect to Kubernetes: no kubeconfig and no service account found; set --kubeconfig or --server"},
		"unknown context":    {[]string{"run", "--context", "x"}, `hindsight: connect to Kubernetes: context "x" does not exist`},
		"missing kubeconfig": {[]string{"run", "--kubeconfig", "/absent"}, "hindsight: connect to Kubernetes: stat /absent: no such file or directory"},
		"invalid listen":     {[]string{"run", "--server", "http://127.0.0.1:1", "--listen", "8080"}, `hindsight: listen: "8080" is not a listen address, such as :8080`},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, "", c.args...)
			if code != exitUsage || stderr != c.want+"\n" || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr\n%s\nwant 2 and\n%s", code, stdout, stderr, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	code, stdout, stderr := call(t, "", "check")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "format: eventrouter") {
		t.Errorf("exit code %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := call(t, "", "version")
	if code != 0 || !strings.HasPrefix(stdout, "hindsight ") {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
}

const (
	older = `{"kind":"Event","metadata":{"name":"older","namespace":"team-a","uid":"1","resourceVersion":"10"},"reason":"Pulled","type":"Normal","message":"older","lastTimestamp":"2019-07-19T11:00:00Z"}`
	newer = `{"kind":"Event","metadata":{"name":"newer","namespace":"team-b","uid":"2","resourceVersion":"11"},"reason":"Preempted","type":"Warning","message":"token=abc by x","lastTimestamp":"2019-07-19T11:05:00Z"}`
)

func TestReplay(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	const yaml = `
drop: ['{name="nothing"}', '{namespace="team-a"}']
redact: [{match: 'token=\S+', with: 'token=…'}]
source: {namespaces: [elsewhere]}
sinks:
  - {name: out, match: '{type="Warning"}', stdout: {format: text}}
`
	if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, _ = z.Write([]byte(older + "\n"))
	_ = z.Close()
	packed := gz.String()
	for name, c := range map[string]struct {
		input  string
		args   []string
		code   int
		stdout []string // a part of each line
		stderr string
	}{
		"a list is sorted by time": {
			input:  `{"kind":"List","items":[` + newer + "," + older + "]}",
			stdout: []string{`"message":"older"`, `"message":"token=abc by x"`},
		},
		"a stream is sorted by time": {
			input:  newer + "\n" + older + "\n",
			stdout: []string{`"message":"older"`, `"message":"token=abc by x"`},
		},
		"our own lines give the same lines": {
			input:  `{"verb":"ADDED","event":` + older + "}\n",
			stdout: []string{`{"verb":"ADDED","event":{"metadata":{"name":"older",`},
		},
		"with a configuration": {
			input:  newer + "\n" + older + "\n",
			args:   []string{"--config", config},
			stdout: []string{"2019-07-19T11:05:00.000000011Z team-b Warning Preempted Event/newer: token=… by x"},
		},
		"a line that is no Event is reported and the rest exported": {
			input:  older + "\nhello\n" + newer + "\n",
			code:   exitFailure,
			stdout: []string{`"older"`, `"newer"`},
			stderr: "hindsight: stdin: line 2: looks like text: \"hello\"\n",
		},
		"objects that are not Events are reported once": {
			input:  strings.Repeat("apiVersion: apps/v1\nkind: Deployment\n---\n", 50),
			code:   exitFailure,
			stderr: "hindsight: stdin: line 1: not Events, but Deployment (50)\n",
		},
		"nor is anything read from an archive": {
			input:  "PK\x03\x04" + strings.Repeat("\n\x01\xff", 100),
			code:   exitFailure,
			stderr: "hindsight: stdin looks like a zip archive, which is not supported\n",
		},
		"packed data that breaks off": {
			input:  packed[:len(packed)-4],
			code:   exitFailure,
			stdout: []string{`"older"`},
			stderr: "hindsight: stdin cannot be decompressed to its end: unexpected EOF; Events may be missing\n",
		},
		"a watch that ended in an error": {
			input:  `{"type":"ADDED","object":` + older + `}` + "\n" + `{"type":"DELETED","object":` + newer + `}` + "\n" + `{"type":"ERROR","object":{"kind":"Status","message":"too old resource version","reason":"Expired","code":410}}`,
			code:   exitFailure,
			stdout: []string{`"older"`},
			stderr: "hindsight: stdin: line 3: the API server returned an error: too old resource version (410 Expired)\n",
		},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, c.input, append([]string{"replay", "-"}, c.args...)...)
			if code != c.code || stderr != c.stderr {
				t.Errorf("exit code %d, stderr %q; want %d, %q", code, stderr, c.code, c.stderr)
			}
			lines := strings.Split(stdout, "\n")
			if len(lines) != len(c.stdout)+1 {
				t.Fatalf("%d lines, want %d:\n%s", len(lines)-1, len(c.stdout), stdout)
			}
			for i, want := range c.stdout {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d is\n%s\nwant it to contain\n%s", i+1, lines[i], want)
				}
			}
		})
	}
}

// If a sink rejects records, the command fails with their number and the reason.
func TestReplayOfRejectedRecords(t *testing.T) {
	const tooOld = "entry for stream '{}' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2026-01-01T00:00:00Z"
	loki := fakeloki.Start(t, fakeloki.Options{})
	loki.ScriptPushes(func(p *fakeloki.Push) fakeloki.Response {
		old := 0
		for _, e := range p.Entries() {
			if strings.Contains(e.Line, "name=old-") {
				old++
			}
		}
		if old > 0 {
			return fakeloki.Response{Status: http.StatusBadRequest, Body: fmt.Sprintf("%d errors like: %s\n", old, tooOld)}
		}
		return fakeloki.Response{Status: http.StatusNoContent}
	})
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("sinks:\n- {name: loki, loki: {url: "+loki.URL+", batch_wait: 0s}}\n- {name: out, stdout: {}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var in strings.Builder
	for i := range 60 {
		name, reason, at := fmt.Sprintf("new-%d", i), "Scheduled", time.Now()
		if i < 40 {
			name, reason, at = fmt.Sprintf("old-%d", i), "Pulled", time.Date(2019, 7, 19, 11, 0, 0, 0, time.UTC)
		}
		fmt.Fprintf(&in, `{"kind":"Event","metadata":{"name":"e-%d","namespace":"team-a","uid":"u-%d","resourceVersion":"%d"},"involvedObject":{"kind":"Pod","name":"%s"},"reason":"%s","lastTimestamp":"%s"}`+"\n",
			i, i, i+1, name, reason, at.UTC().Format(time.RFC3339))
	}
	code, stdout, stderr := call(t, in.String(), "replay", "-", "--config", config)
	if n := strings.Count(stdout, "\n"); n != 60 {
		t.Errorf("%d lines, want 60", n)
	}
	last := stderr[strings.LastIndexByte(strings.TrimSuffix(stderr, "\n"), '\n')+1:]
	if want := "hindsight: sink loki rejected 40 of 60 records: " + tooOld + "\n"; code != exitFailure || last != want {
		t.Errorf("exit code %d, last line %q; want 1 and %q", code, last, want)
	}
}

func TestReplayShiftedToNow(t *testing.T) {
	_, stdout, stderr := call(t, newer+"\n"+older+"\n", "replay", "-", "--shift-to-now")
	var times []time.Time
	for line := range strings.Lines(stdout) {
		var got struct {
			Event struct{ LastTimestamp time.Time }
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		times = append(times, got.Event.LastTimestamp)
	}
	if len(times) != 2 {
		t.Fatalf("%d lines, want 2; stderr: %s", len(times), stderr)
	}
	if age := time.Since(times[1]); age < 0 || age > time.Minute {
		t.Errorf("the newest time is %v, want now", times[1])
	}
	if apart := times[1].Sub(times[0]); apart != 5*time.Minute {
		t.Errorf("the times are %v apart, want 5m as before", apart)
	}
}

// The output of a watch is delivered while it continues, sorted between two pauses.
func TestReplayOfAWatch(t *testing.T) {
	in, out := io.Pipe()
	var stdout, stderr buffer
	ended := make(chan int)
	go func() { ended <- execute(t.Context(), []string{"replay", "-"}, in, &stdout, &stderr) }()
	wait := func(lines int) {
		t.Helper()
		for strings.Count(stdout.String(), "\n") < lines {
			select {
			case code := <-ended:
				t.Fatalf("ended with exit code %d:\n%s", code, stderr.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	_, _ = io.WriteString(out, newer+"\n"+older+"\n"+`{"kind":"List","items":[`+"\n"+newer)
	_, _ = io.WriteString(out, "]}\n")
	wait(3)
	_, _ = io.WriteString(out, older+"\n")
	wait(4)
	_ = out.Close()
	if code := <-ended; code != 0 || stderr.String() != "" {
		t.Errorf("exit code %d:\n%s", code, stderr.String())
	}
	var got []string
	for line := range strings.Lines(stdout.String()) {
		_, name, _ := strings.Cut(line, `"name":"`)
		name, _, _ = strings.Cut(name, `"`)
		got = append(got, name)
	}
	if want := []string{"older", "newer", "newer", "older"}; !slices.Equal(got, want) {
		t.Errorf("delivered %q, want %q", got, want)
	}
}

// An interrupted replay delivers the Events that it has read.
func TestInterruptedReplay(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	ctx, terminate := context.WithCancel(t.Context())
	var stdout, stderr buffer
	ended := make(chan int)
	go func() { ended <- execute(ctx, []string{"replay", "-"}, in, &stdout, &stderr) }()
	text := newer + "\n" + older + "\n" + newer[:20]
	for range 2 { // the second write returns once the first was read
		_, _ = io.WriteString(out, text)
		text = newer[20:40]
	}
	terminate()
	if code := <-ended; code != 0 || stderr.String() != "" {
		t.Errorf("exit code %d:\n%s", code, stderr.String())
	}
	if got := stdout.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"name":"newer"`) {
		t.Errorf("delivered:\n%s", got)
	}
}

func TestRun(t *testing.T) {
	ctx, terminate := context.WithCancel(t.Context())
	var stdout, stderr buffer
	api := fakeapi.New(t)
	put := func(text string) {
		e := &corev1.Event{}
		if err := json.Unmarshal([]byte(text), e); err != nil {
			t.Fatal(err)
		}
		api.Put(e)
	}
	put(older)
	ended := make(chan int)
	go func() {
		ended <- execute(ctx, []string{"run", "--server", api.Listen(), "--listen", "127.0.0.1:0"}, strings.NewReader(""), &stdout, &stderr)
	}()
	lines := func(n int) func() bool { return func() bool { return strings.Count(stdout.String(), "\n") == n } }
	wait.Until(t, "the listed Event is delivered", lines(1))
	put(newer)
	wait.Until(t, "the watched Event is delivered", lines(2))
	terminate()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, stderr.String())
	}
	first, second, _ := strings.Cut(stdout.String(), "\n")
	if !strings.Contains(first, `"name":"older"`) || !strings.Contains(second, `"name":"newer"`) {
		t.Errorf("got\n%s", stdout.String())
	}
}

// Each line of output in the README is printed by the command above it.
func TestReadmeShowsRealOutput(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..")
	shown := 0
	for block := range strings.SplitSeq(string(readme), "```console\n") {
		command, output, _ := strings.Cut(block, "\n")
		args, ok := strings.CutPrefix(command, "$ go run ./cmd/hindsight ")
		if !ok || !strings.HasPrefix(args, "replay") && !strings.HasPrefix(args, "timeline") {
			continue
		}
		code, stdout, stderr := call(t, "", strings.Fields(args)...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", command, code, stderr)
		}
		output, _, _ = strings.Cut(output, "```")
		for line := range strings.Lines(output) {
			if line != "…\n" && !strings.Contains(stdout, line) {
				t.Errorf("%s does not print\n%s", command, line)
			}
			shown++
		}
	}
	if shown == 0 {
		t.Error("the README shows no output")
	}
}
