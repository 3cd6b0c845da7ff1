package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/internal/config"
)

// The comments "# want: …" of each file in testdata/bad are the lines of the expected error.
func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/bad: %v", err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.SplitSeq(string(data), "\n") {
				if line, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, line)
				}
			}
			_, err = config.Parse(name, data)
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Error(); got != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "absent.yaml"))
	if err == nil || !strings.HasPrefix(err.Error(), "read configuration: open ") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestDefaults(t *testing.T) {
	for name, text := range map[string]string{
		"a bare destination":       "sinks:\n  - name: stdout\n    stdout:\n",
		"an empty destination":     "sinks:\n  - name: stdout\n    stdout: {}\n",
		"empty sections elsewhere": "source:\nlevels:\njournal: ~\nleader_election:\ncanary: null\nlog:\nsinks: [{name: stdout, stdout: {}}]\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse("c.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := print(t, c), print(t, config.Eventrouter()); got != want {
				t.Errorf("got\n%s\nwant the configuration without a file\n%s", got, want)
			}
		})
	}
}

// The output of the command check is an equal configuration.
func TestPrintedConfigurationIsEqual(t *testing.T) {
	const text = `
listen: ""
source: {namespaces: [team-a, team-b]}
drop: ['{namespace="kube-system", reason=~"Pulled|Created"}']
redact: [{match: 'token=\S+', with: 'token=…'}]
levels: {error: '{reason="OOMKilling"}', warn: []}
max_streams: 100
journal: {max_bytes: 1.5GiB}
drain_timeout: 1h30m
log: {level: debug, format: json}
sinks:
  - name: warnings
    match: '{type="Warning"}'
    stdout: {format: text}
  - {name: one-stream, loki: {url: "http://loki:3100", labels: {}}}
  - {name: default-labels, loki: {url: "http://loki:3100"}}
`
	c, err := config.Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	printed := print(t, c)
	again, err := config.Parse("printed.yaml", []byte(printed))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, printed)
	}
	if print(t, again) != printed {
		t.Errorf("got\n%s\nafter parsing\n%s", print(t, again), printed)
	}
	for _, want := range []string{"max_bytes: 1536MiB", "drain_timeout: 1h30m\n", "- team-b", `token=\S+`, "labels: {}\n", "reason: reason\n", `- '{reason="OOMKilling"}'`, "warn: []\n"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is missing in\n%s", want, printed)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("sinks: [{name: a, stdout: {format: text}}]"))
	f.Add([]byte("sinks: [&a {<<: *a, name: x}]"))
	f.Add([]byte("drop: ['{a']\nsinks:\n- name: x\n  stdout:"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("fuzz.yaml", data)
		if err == nil && len(c.Sinks) == 0 {
			t.Error("a configuration without sinks was accepted")
		}
		if err != nil && !strings.HasPrefix(err.Error(), "fuzz.yaml:") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}

func print(t *testing.T, c *config.Config) string {
	t.Helper()
	out, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Every configuration in examples is valid.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in examples: %v", err)
	}
	for _, path := range files {
		if _, err := config.Load(path); err != nil {
			t.Error(err)
		}
	}
}

// The YAML in the documentation is valid: whole configurations and parts of one.
func TestExamplesInDocs(t *testing.T) {
	blocks := 0
	for _, path := range []string{"../../README.md", "../../docs/configuration.md"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(data), "```yaml\n")[1:] {
			text, _, _ := strings.Cut(block, "```")
			if !strings.Contains(text, "sinks:") {
				text += "\nsinks: [{name: out, stdout: {}}]\n"
			}
			if _, err := config.Parse(fmt.Sprintf("%s, block %d", path, i+1), []byte(text)); err != nil {
				t.Error(err)
			}
			blocks++
		}
	}
	if blocks < 2 {
		t.Errorf("%d YAML blocks found, want the ones of README and docs", blocks)
	}
}

// A null in place of a value is an error at that key, in each spelling, also in a list.
func TestNulls(t *testing.T) {
	all := append(keys(reflect.TypeFor[config.Config](), ""),
		"source.namespaces.-", "drop.-", "redact.-", "redact.-.match", "redact.-.with",
		"sinks", "sinks.-", "sinks.match.-", "sinks.loki.labels.x", "sinks.loki.external_labels.x",
		"sinks.loki.basic_auth", "sinks.loki.basic_auth.password", "sinks.loki.authorization.credentials",
		"sinks.loki.tls_config", "sinks.loki.tls_config.ca_file", "sinks.loki.oauth2.scopes.-",
		"sinks.loki.http_headers.X-A.values.-", "sinks.loki.proxy_url",
	)
	for _, key := range all {
		for _, null := range []string{"", "~", "null", "!!null ''"} {
			text, path, line := nullAt(key, null)
			_, err := config.Parse("c.yaml", []byte(text))
			if want := fmt.Sprintf("c.yaml:%d: %s: ", line, path); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "no value (null)") {
				t.Errorf("error %v, want the prefix %q, for\n%s", err, want, text)
			}
		}
	}
}

// nullAt returns a configuration with a null at a key, and the path and the line of the null. In
// the key, "-" is an element of a list.
func nullAt(key, null string) (text, path string, line int) {
	if rest, ok := strings.CutPrefix(key, "sinks."); ok && !strings.HasPrefix(rest, "-") {
		key = "sinks.-." + rest
	}
	element := ""
	for depth, part := range strings.Split(key, ".") {
		if part == "-" {
			text += "\n" + strings.Repeat("  ", depth) + "- "
			element, path = "- ", path+"[0]"
			continue
		}
		if element == "" {
			text += "\n" + strings.Repeat("  ", depth)
		}
		text += part + ": "
		element, path = "", strings.TrimPrefix(path+"."+part, ".")
	}
	text = strings.TrimPrefix(text, "\n") + null + "\n"
	return text, path, strings.Count(text, "\n")
}

// docs/configuration.md has each key and its default.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, key := range keys(reflect.TypeFor[config.Config](), "") {
		if key = strings.TrimPrefix(key, "sinks."); !strings.Contains(doc, "\n| `"+key+"` |") && !strings.Contains(doc, "\n| `"+key+"`, `") {
			t.Errorf("docs/configuration.md has no row for %s", key)
		}
	}
	for _, def := range []string{"`:8080`", "`2500`", "`32MiB`", "`1GiB`", "`20s`"} {
		if !strings.Contains(doc, def) {
			t.Errorf("docs/configuration.md does not have the default %s", def)
		}
	}
}

// keys returns the keys of a configuration that have a value, nested keys with a dot.
func keys(t reflect.Type, prefix string) (all []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		key := strings.TrimPrefix(prefix+"."+name, ".")
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner.NumField() > 0 && inner.Field(0).Tag.Get("yaml") != "" {
			all = append(all, keys(inner, key)...)
		} else {
			all = append(all, key)
		}
	}
	return all
}
