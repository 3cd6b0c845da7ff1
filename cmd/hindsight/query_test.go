package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// eventsFile writes a file of Events of the last day and returns its path.
func eventsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	// Its age reads 20h for half an hour.
	at := time.Now().Add(-20*time.Hour - 30*time.Minute).UTC().Format(time.RFC3339)
	lines := strings.ReplaceAll(`{"verb":"ADDED","event":{"metadata":{"name":"web-0.1","namespace":"team-a","uid":"1","resourceVersion":"10"},"involvedObject":{"kind":"Pod","name":"web-0","namespace":"team-a"},"reason":"Pulled","type":"Normal","message":"image is there","count":1,"firstTimestamp":"AT","lastTimestamp":"AT"}}
{"verb":"ADDED","event":{"metadata":{"name":"web-0.2","namespace":"team-a","uid":"2","resourceVersion":"11"},"involvedObject":{"kind":"Pod","name":"web-0","namespace":"team-a"},"reason":"BackOff","type":"Warning","message":"again","count":1,"firstTimestamp":"AT","lastTimestamp":"AT"}}
{"verb":"UPDATED","event":{"metadata":{"name":"web-0.2","namespace":"team-a","uid":"2","resourceVersion":"12"},"involvedObject":{"kind":"Pod","name":"web-0","namespace":"team-a"},"reason":"BackOff","type":"Warning","message":"again","count":2,"firstTimestamp":"AT","lastTimestamp":"AT"}}
{"verb":"ADDED","event":{"metadata":{"name":"node-3.1","namespace":"default","uid":"3","resourceVersion":"13"},"involvedObject":{"kind":"Node","name":"node-3"},"reason":"Rebooted","type":"Warning","message":"was it?","count":1,"firstTimestamp":"AT","lastTimestamp":"AT"}}
`, "AT", at)
	if err := os.WriteFile(path, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// clearEnvironment removes the environment variables that a query uses.
func clearEnvironment(t *testing.T) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	for _, name := range []string{"HINDSIGHT_LOKI_URL", "LOKI_ADDR", "LOKI_ORG_ID", "LOKI_USERNAME", "LOKI_BEARER_TOKEN", "LOKI_BEARER_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
}

func TestQueryFiles(t *testing.T) {
	clearEnvironment(t)
	path := eventsFile(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"all namespaces, as a table": {[]string{"-A"}, `NAMESPACE   LAST SEEN           TYPE      REASON     OBJECT        MESSAGE
team-a      20h                 Normal    Pulled     Pod/web-0     image is there
team-a      20h (x2 over 20h)   Warning   BackOff    Pod/web-0     again
default     20h                 Warning   Rebooted   Node/node-3   was it?
`},
		"the states of an Event":             {[]string{"-n", "team-a", "--reason", "BackOff", "--states", "-o", "name"}, "event/web-0.2\nevent/web-0.2\n"},
		"the newest":                         {[]string{"-A", "--limit", "1", "-o", "name"}, "event/node-3.1\n"},
		"without a kubeconfig: default":      {[]string{"-o", "name"}, "event/node-3.1\n"},
		"a node's, from no namespace":        {[]string{"--for", "node/node-3", "-o", "name"}, "event/node-3.1\n"},
		"a node's, from any namespace":       {[]string{"--for", "no/node-3", "-n", "team-a"}, "LAST SEEN   TYPE      REASON     OBJECT        MESSAGE\n20h         Warning   Rebooted   Node/node-3   was it?\n"},
		"types and a pattern":                {[]string{"-A", "--types", "Warning", "--grep", "^a.ain$", "-o", "name"}, "event/web-0.2\n"},
		"a selector":                         {[]string{"-A", "-l", `{reason=~"Pul.*|Reb.*", kind!="Node"}`, "-o", "name"}, "event/web-0.1\n"},
		"nothing of another time":            {[]string{"-A", "--to", "2d", "-o", "name"}, ""},
		"the whole Event, for kubectl's eye": {[]string{"-n", "team-a", "--reason", "Pulled", "-o", "json"}, `"kind":"Event","apiVersion":"v1"`},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, "", append([]string{"query", "--file", path}, c.args...)...)
			part := strings.HasPrefix(c.want, `"`) // of a line
			if code != 0 || !part && stdout != c.want || part && !strings.Contains(stdout, c.want) {
				t.Errorf("exit code %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, c.want)
			}
			if c.want == "" && !strings.Contains(stderr, "no Events found from ") {
				t.Errorf("no message about the empty result: %q", stderr)
			}
		})
	}
	t.Run("the output can be replayed", func(t *testing.T) {
		_, found, _ := call(t, "", "query", "-A", "--states", "--file", path, "-o", "json")
		code, again, stderr := call(t, found, "replay", "-")
		original, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if code != 0 || stderr != "" || strings.Count(again, "\n") != strings.Count(string(original), "\n") {
			t.Errorf("exit code %d, stderr %q:\n%s", code, stderr, again)
		}
	})
}

func TestQueryUsageErrors(t *testing.T) {
	clearEnvironment(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stdout := write("stdout.yaml", "sinks: [{name: out, stdout: {}}]\n")
	two := write("two.yaml", "sinks: [{name: a, loki: {url: 'http://a'}}, {name: b, loki: {url: 'http://b/push'}}]\n")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no Loki":            {nil, "no address of Loki: set --loki-url, HINDSIGHT_LOKI_URL or --config, or read files with --file"},
		"invalid address":    {[]string{"--loki-url", "loki:3100"}, "address of Loki: begins neither with http:// nor with https://; write it as in http://loki:3100"},
		"missing file":       {[]string{"--file", "/absent/events.jsonl"}, "open /absent/events.jsonl: open /absent: no such file or directory"},
		"no readable sink":   {[]string{"--config", stdout}, stdout + ": no readable sink: neither loki nor file"},
		"sink to stdout":     {[]string{"--config", stdout, "--sink", "out"}, stdout + ": sink out writes to stdout, which cannot be read"},
		"several sinks":      {[]string{"--config", two}, two + ": several readable sinks; choose one with --sink: a, b"},
		"unknown sink":       {[]string{"--config", two, "--sink", "c"}, two + `: no readable sink "c"; readable sinks: a, b`},
		"no base address":    {[]string{"--config", two, "--sink", "b"}, two + ": sink b: url: cannot derive the query URL from the path /push; set --loki-url"},
		"unknown output":     {[]string{"--loki-url", "http://a", "-o", "xml"}, `--output: "xml" is unknown; valid are table, wide, json, yaml, logfmt, text, name`},
		"no time":            {[]string{"--from", "soon"}, `--from: "soon" is not a time; examples are 2006-01-02, "2006-01-02 15:04", 15:04, yesterday, "friday 15:04", 3h, and RFC 3339`},
		"following the past": {[]string{"-w", "--to", "1h"}, "--watch continues without an end: remove --to"},
		"an argument":        {[]string{"pod/web-0"}, `unknown command "pod/web-0" for "hindsight query"`},
		"labels of files":    {[]string{"--file", stdout, "--cluster", "eu"}, "cluster: Events in files have no labels"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := call(t, "", append([]string{"query"}, c.args...)...)
			if code != exitUsage || stderr != "hindsight: "+c.want+"\n" || out != "" {
				t.Errorf("exit code %d, stdout %q, stderr\n%s\nwant 2 and\n%s", code, out, stderr, c.want)
			}
		})
	}
}

// Each example of the help works, as far as that shows without a Loki: it prints its query, or it
// reads a file.
func TestQueryExamples(t *testing.T) {
	clearEnvironment(t)
	path := eventsFile(t)
	examples := 0
	for text := range strings.Lines(queryExamples) {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		examples++
		args := words(t, text)
		if args[0] != "hindsight" || args[1] != "query" {
			t.Fatalf("%s is not a query", text)
		}
		args = args[1:]
		fromFile := false
		for i := range args {
			if args[i] == "/var/log/hindsight/events.jsonl" {
				args[i], fromFile = path, true
			}
		}
		if !fromFile && args[len(args)-1] != "--logql" {
			args = append(args, "--logql")
		}
		code, stdout, stderr := call(t, "", args...)
		if code != 0 || fromFile && strings.Count(stdout, "\n") != 4 || !fromFile && !strings.HasPrefix(stdout, `{job="hindsight"`) {
			t.Errorf("%s: exit code %d: %s%s", text, code, stdout, stderr)
		}
	}
	if examples < 5 {
		t.Errorf("%d examples", examples)
	}
}

// words splits a command line with quotes.
func words(t *testing.T, s string) (all []string) {
	t.Helper()
	for s != "" {
		var word string
		for s != "" && s[0] != ' ' {
			if q := s[0]; q == '"' || q == '\'' {
				quoted, rest, ok := strings.Cut(s[1:], string(q))
				if !ok {
					t.Fatalf("missing quote in %s", s)
				}
				word, s = word+quoted, rest
				continue
			}
			word, s = word+s[:1], s[1:]
		}
		all = append(all, word)
		s = strings.TrimLeft(s, " ")
	}
	return all
}

// --config sets the address, the tenant, the credentials and the labels of Loki.
func TestQueryByConfiguration(t *testing.T) {
	clearEnvironment(t)
	path := filepath.Join(t.TempDir(), "config.yaml")
	const yaml = `
cluster: eu
sinks:
  - {name: out, stdout: {}}
  - name: loki
    loki:
      url: https://user:secret@gateway/team/loki/api/v1/push
      tenant_id: t
      job: events
      labels: {ns: namespace}
      external_labels: {stage: prod}
      format: json
`
	if err := os.WriteFile(path, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	_, stdout, stderr := call(t, "", "query", "--config", path, "--logql", "-n", "a", "--reason", "B")
	if want := `{job="events", stage="prod", cluster="eu", ns="a"} | json event_reason="reason" | event_reason="B"` + "\n"; stdout != want {
		t.Errorf("%s%s, want %s", stdout, stderr, want)
	}
	r, err := sourceFlags{config: path}.readSource()
	if err != nil || r.loki.URL.Redacted() != "https://user:xxxxx@gateway/team" || r.loki.TenantID != "t" {
		t.Errorf("%+v, %v", r.loki, err)
	}
	t.Setenv("LOKI_ADDR", "http://elsewhere")
	t.Setenv("LOKI_ORG_ID", "o")
	t.Setenv("LOKI_USERNAME", "u")
	t.Setenv("LOKI_PASSWORD", "p")
	r, err = sourceFlags{}.readSource()
	if err != nil || r.loki.URL.String() != "http://elsewhere" || r.loki.TenantID != "o" || r.loki.HTTP.BasicAuth.Password != "p" {
		t.Errorf("%+v, %v", r.loki, err)
	}
	r, err = sourceFlags{url: "http://here/loki/api/v1/push", tenant: "x"}.readSource()
	if err != nil || r.loki.URL.String() != "http://here" || r.loki.TenantID != "x" {
		t.Errorf("%+v, %v", r.loki, err)
	}
}
