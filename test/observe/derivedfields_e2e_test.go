//go:build e2e

package observe

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

// derivedField is one of a Loki data source. Grafana finds its value in each line as
// derivedValue does.
type derivedField struct {
	Name            string `yaml:"name"`
	MatcherType     string `yaml:"matcherType"`
	MatcherRegex    string `yaml:"matcherRegex"`
	DatasourceUID   string `yaml:"datasourceUid"`
	URL             string `yaml:"url"`
	URLDisplayLabel string `yaml:"urlDisplayLabel"`
}

// value returns what Grafana shows for an entry, empty if nothing.
func (f derivedField) value(t *testing.T, e cluster.LokiEntry) string {
	t.Helper()
	re := regexp.MustCompile(f.MatcherRegex)
	if f.MatcherType == "regex" {
		if m := re.FindStringSubmatch(e.Line); m != nil {
			return m[1]
		}
		return ""
	}
	found := ""
	for _, labels := range []map[string]string{e.Labels, e.Metadata} {
		for name, value := range labels {
			if re.MatchString(name) {
				if found != "" {
					t.Errorf("derived field %s matches several labels", f.Name)
				}
				found = value
			}
		}
	}
	return found
}

// query returns the query of a link. A provisioning file has $$ for $.
func (f derivedField) query(value string) string {
	return strings.ReplaceAll(f.URL, "$${__value.raw}", value)
}

// derivedFields reads a provisioning file.
func derivedFields(t *testing.T, data string) []derivedField {
	t.Helper()
	var file struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, UID, Access, URL string
			JSONData                     struct {
				DerivedFields []derivedField `yaml:"derivedFields"`
			} `yaml:"jsonData"`
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if file.APIVersion != 1 || len(file.Datasources) != 1 || file.Datasources[0].Type != "loki" {
		t.Fatalf("%+v is not a Loki data source", file)
	}
	fields := file.Datasources[0].JSONData.DerivedFields
	for _, f := range fields {
		if f.DatasourceUID != file.Datasources[0].UID {
			t.Errorf("derived field %s is of the data source %q", f.Name, f.DatasourceUID)
		}
		if f.URL != f.query("") != strings.Contains(f.URL, "$${__value.raw}") || strings.Count(f.URL, "$") != 2 {
			t.Errorf("derived field %s has the query %s", f.Name, f.URL)
		}
	}
	return fields
}

// documentedDerivedFields reads the provisioning file in docs/queries.md.
func documentedDerivedFields(t *testing.T) []derivedField {
	t.Helper()
	doc, err := os.ReadFile("../../docs/queries.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(doc), "```yaml\napiVersion: 1\n")
	data, _, found := strings.Cut(after, "```")
	if !found {
		t.Fatal("docs/queries.md has no provisioning file")
	}
	return derivedFields(t, "apiVersion: 1\n"+data)
}

// The links of derived fields find the right Events of the recorded outage in a real Loki, in each
// format and in short lines.
func TestDerivedFields(t *testing.T) {
	t.Parallel()
	fields := documentedDerivedFields(t)
	field := func(name string) derivedField {
		i := slices.IndexFunc(fields, func(f derivedField) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("there is no derived field %s", name)
		}
		return fields[i]
	}
	preemptor, object, node := field("preemptor"), field("object"), field("on node")

	l := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	sinks := map[string]string{
		"logfmt": "", "logfmt-short": ", line: short", "json": ", format: json", "json-short": ", format: json, line: short",
		"text": ", format: text", "eventrouter": ", format: eventrouter",
	}
	config := "cluster: observe\nsinks:\n"
	for name, more := range sinks {
		config += fmt.Sprintf("  - {name: %s, loki: {url: %q, tenant_id: %s, batch_wait: 200ms%s}}\n", name, l.URL(), name, more)
	}
	_, stderr, code := program.Run(t, program.Options{Args: []string{"replay", "--shift-to-now", recording}, Config: config})
	if code != 0 {
		t.Fatalf("hindsight replay: exit code %d\n%s", code, stderr)
	}
	for name := range sinks {
		t.Run(name, func(t *testing.T) {
			l.Tenant = name
			now := time.Now().Add(time.Minute)
			entries := func(query string) []cluster.LokiEntry {
				t.Helper()
				found, err := l.Entries(t.Context(), query, now.Add(-2*time.Hour), now)
				if err != nil {
					t.Fatal(err)
				}
				return found
			}
			all := entries(`{job="hindsight"}`)
			count := func(key, value string) (n int) {
				for _, e := range all {
					if e.Metadata[key] == value {
						n++
					}
				}
				return n
			}
			asked := map[string]int{} // the number of entries that a query finds
			check := func(f derivedField, value, key string) {
				t.Helper()
				query := f.query(value)
				if _, known := asked[query]; known {
					return
				}
				found := entries(query)
				asked[query] = len(found)
				if want := count(key, value); len(found) != want || want == 0 {
					t.Errorf("%s finds %d entries, want %d", query, len(found), want)
				}
				for _, e := range found {
					if e.Metadata[key] != value {
						t.Errorf("%s finds %v", query, e)
					}
				}
			}
			preempted := 0
			for _, e := range all {
				value := preemptor.value(t, e)
				if isPreempted := e.Labels["reason"] == "Preempted"; isPreempted != (value != "") {
					t.Errorf("the preemptor is %q in %s", value, e.Line)
				} else if isPreempted {
					preempted++
					check(preemptor, value, "uid")
				}
				if value := object.value(t, e); value != e.Metadata["uid"] {
					t.Errorf("the object is %q in %v", value, e.Metadata)
				} else if value != "" && preempted == 1 {
					check(object, value, "uid")
				}
				if value := node.value(t, e); value != e.Metadata["node"] {
					t.Errorf("the node is %q in %v", value, e.Metadata)
				} else if value != "" {
					check(node, value, "node")
				}
			}
			if preempted == 0 || len(asked) < 20 {
				t.Errorf("%d pods are preempted, and %d queries asked", preempted, len(asked))
			}
		})
	}
}
