package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// query --file reads all formats that replay reads, sorted by time, and reports other content once.
func TestQueryOtherFiles(t *testing.T) {
	clearEnvironment(t)
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	item := func(name, version, count string, ago time.Duration) string {
		return `{"metadata":{"name":"` + name + `.1","namespace":"shop","uid":"` + name + `","resourceVersion":"` + version + `"},"involvedObject":{"kind":"Pod","name":"` + name +
			`"},"reason":"BackOff","message":"again","count":` + count + `,"type":"Warning","firstTimestamp":"` + at(time.Hour) + `","lastTimestamp":"` + at(ago) + `"}`
	}
	list := `{"kind":"EventList","apiVersion":"v1","items":[` + item("b", "2", "1", time.Minute) + "," + item("a", "1", "1", 2*time.Minute) + "]}"
	event := func(s string) string { return strings.Replace(s, "{", `{"kind":"Event","apiVersion":"v1",`, 1) }
	frames := `{"type":"ADDED","object":` + event(item("a", "1", "1", time.Hour)) + "}\n" + `{"type":"MODIFIED","object":` + event(item("a", "9", "18", time.Minute)) + "}\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(list))
	_ = z.Close()

	path := filepath.Join(t.TempDir(), "events")
	for name, c := range map[string]struct {
		input  string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"a list, oldest first": {input: list, stdout: "event/a.1\nevent/b.1\n"},
		"the newest of it":     {input: list, args: []string{"--limit", "1"}, stdout: "event/b.1\n"},
		"packed":               {input: packed.String(), stdout: "event/a.1\nevent/b.1\n"},
		"packed, and breaking off": {
			input: packed.String()[:packed.Len()-4], code: exitFailure, stdout: "event/a.1\nevent/b.1\n",
			stderr: "hindsight: " + path + " cannot be decompressed to its end: unexpected EOF; Events may be missing\n",
		},
		"frames: a row": {input: frames, stdout: "event/a.1\n"},
		"text of another program among them": {
			input: "starting\n" + list + "\nstopped\n", stdout: "event/a.1\nevent/b.1\n",
			stderr: "hindsight: " + path + `: line 1: looks like text: "starting" (and 1 more)` + "\n",
		},
		"something else": {
			input: strings.Repeat("apiVersion: apps/v1\nkind: Deployment\n---\n", 9), code: exitFailure,
			stderr: "hindsight: " + path + ": line 1: not Events, but Deployment (9)\n",
		},
		"a watch that ended in an error": {
			input: frames + `{"type":"ERROR","object":{"kind":"Status","message":"too old","reason":"Expired","code":410}}` + "\n", code: exitFailure,
			stdout: "event/a.1\n",
			stderr: "hindsight: " + path + ": line 3: the API server returned an error: too old (410 Expired)\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.input), 0o644); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := call(t, "", append([]string{"query", "-A", "-o", "name", "--file", path}, c.args...)...)
			if code != c.code || stdout != c.stdout || stderr != c.stderr {
				t.Errorf("exit code %d, stdout %q, stderr\n%s\nwant %d, %q,\n%s", code, stdout, stderr, c.code, c.stdout, c.stderr)
			}
		})
	}
}

// The stored time of an Event is in the output of query, and a replay of that output keeps it.
func TestStoredTimeIsKept(t *testing.T) {
	clearEnvironment(t)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	stored := time.Now().Add(-time.Hour).UTC().Truncate(time.Second).Add(100).Format(time.RFC3339Nano)
	line := `{"verb":"ADDED","event":{"metadata":{"name":"edge-1.1","namespace":"default","uid":"u","resourceVersion":"100"},"involvedObject":{"kind":"Node","name":"edge-1"},` +
		`"reason":"Starting","message":"Starting kubelet.","source":{"component":"kubelet","host":"edge-1"},"firstTimestamp":"1970-01-01T00:00:21Z","lastTimestamp":"1970-01-01T00:00:21Z",` +
		`"count":1,"type":"Normal","eventTime":null,"reportingComponent":"","reportingInstance":""},"time":"` + stored + `"}` + "\n"
	if err := os.WriteFile(path, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	_, again, _ := call(t, line, "replay", "-")
	if again != line {
		t.Errorf("%s becomes\n%s", line, again)
	}
	for _, output := range []string{"json", "yaml"} {
		code, printed, stderr := call(t, "", "query", "-A", "--file", path, "-o", output)
		if code != 0 || !strings.Contains(printed, stored) {
			t.Errorf("-o %s: exit code %d: %s%s", output, code, printed, stderr)
		}
		if _, again, stderr := call(t, printed, "replay", "-"); again != line {
			t.Errorf("-o %s:\n%s\nbecomes\n%s%s", output, printed, again, stderr)
		}
	}
	// Styles and YAML do not change a message.
	for _, message := range []string{`a\u2028b: \u202ex`, `panic\n\tmain.go:1\n`, `\u001b[0m`} {
		line := strings.Replace(line, "Starting kubelet.", message, 1)
		if err := os.WriteFile(path, []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		_, printed, _ := call(t, "", "query", "-A", "--file", path, "-o", "yaml")
		if _, again, stderr := call(t, printed, "replay", "-"); again != line || strings.ContainsAny(printed, "\u2028\u202e\x1b") {
			t.Errorf("-o yaml:\n%q\nbecomes\n%s%s", printed, again, stderr)
		}
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("sinks: [{name: out, stdout: {format: logfmt}}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, logfmt, _ := call(t, line, "replay", "-", "--config", config)
	if !strings.HasPrefix(logfmt, "time="+stored) || !strings.Contains(logfmt, "observed_time=1970-01-01T00:00:21Z") {
		t.Errorf("in logfmt: %s", logfmt)
	}
	if _, again, _ := call(t, logfmt, "replay", "-", "--config", config); again != logfmt {
		t.Errorf("%s becomes\n%s", logfmt, again)
	}
}
