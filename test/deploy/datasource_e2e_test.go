//go:build e2e

package deploy

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The chart's data source is that of docs/queries.md, which other tests try, with the values.
func TestDatasource(t *testing.T) {
	doc, err := os.ReadFile("../../docs/queries.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(doc), "```yaml\napiVersion: 1\n")
	want, _, _ := strings.Cut("apiVersion: 1\n"+after, "```")
	want = strings.NewReplacer("name: Loki", "name: A b", "uid: loki", "uid: loki_2", "datasourceUid: loki", "datasourceUid: loki_2",
		"http://loki-gateway.monitoring", "https://loki.example.com", `job="hindsight"`, `job="kube"`).Replace(want)

	render := func(datasource string) ([]byte, error) {
		values := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(values, []byte("cluster: a\ndashboards: {datasource: "+datasource+"}\n"+
			"config: {sinks: [{name: loki, loki: {url: \"http://loki\", job: kube}}]}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return runHelm(t, "template", "hindsight", chartDir, "--namespace", "monitoring", "--values", values)
	}
	rendered, err := render(`{enabled: true, name: "A b", uid: loki_2, url: "https://loki.example.com", labels: {team: a}}`)
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, rendered)
	o := all["ConfigMap monitoring/hindsight-datasource"]
	if o == nil {
		t.Fatalf("there is no data source: %v", all)
	}
	if labels := o.GetLabels(); labels["grafana_datasource"] != "1" || labels["team"] != "a" {
		t.Errorf("the data source has the labels %v", labels)
	}
	parse := func(text string) (v any) {
		t.Helper()
		if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		return v
	}
	text := o.Object["data"].(map[string]any)["hindsight-loki.yaml"].(string)
	if got := parse(text); !reflect.DeepEqual(got, parse(want)) {
		t.Errorf("the data source is\n%s\nwant\n%s", text, want)
	}
	if rendered, err := render("{enabled: true}"); err == nil || !strings.Contains(err.Error(), "dashboards.datasource.url is missing") {
		t.Errorf("without a URL: %v\n%s", err, rendered)
	}
}
