//go:build e2e

package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// The chart's dashboards and rules have its values: the job of the Loki sink, and addresses.
func TestDashboardsAndRulesHaveTheValues(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(`cluster: a
dashboards: {enabled: true, labels: {team: a}, annotations: {grafana_folder: Kubernetes}}
lokiRules: {enabled: true, recorded: true}
prometheusRule: {enabled: true}
links: {grafana: "https://grafana.example.com/", runbooks: "https://docs.example.com/operations"}
config:
  sinks:
    - {name: out, stdout: {}}
    - {name: loki, loki: {url: "http://loki", job: kube}}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	all := objects(t, helm(t, "template", "hindsight", chartDir, "--namespace", "monitoring", "--values", values))
	dashboards, rules, alerts := all["ConfigMap monitoring/hindsight-dashboards"], all["ConfigMap monitoring/hindsight-loki-rules"], all["PrometheusRule monitoring/hindsight"]
	if dashboards == nil || rules == nil || alerts == nil {
		t.Fatalf("objects are missing: %v", all)
	}
	if labels := dashboards.GetLabels(); labels["grafana_dashboard"] != "1" || labels["team"] != "a" || dashboards.GetAnnotations()["grafana_folder"] != "Kubernetes" {
		t.Errorf("the dashboards have the labels %v and the annotations %v", labels, dashboards.GetAnnotations())
	}
	for key, object := range map[string]*unstructured.Unstructured{"dashboards": dashboards, "Loki's rules": rules, "alerts": alerts} {
		text := text(t, object.Object)
		if strings.Contains(text, "@") {
			t.Errorf("%s: a placeholder is left", key)
		}
		if len(text) > 1<<20 {
			t.Errorf("%s: %d bytes; Kubernetes permits 1 MiB", key, len(text))
		}
		if key != "dashboards" && (!strings.Contains(text, "https://grafana.example.com/d/hindsight") || !strings.Contains(text, "https://docs.example.com/operations#")) {
			t.Errorf("%s: no links to the given addresses", key)
		}
	}
	for name, data := range dashboards.Object["data"].(map[string]any) {
		var d struct{ UID string }
		if err := json.Unmarshal([]byte(data.(string)), &d); err != nil || name != d.UID+".json" {
			t.Errorf("%s is the dashboard %q: %v", name, d.UID, err)
		}
	}
	if !strings.Contains(text(t, dashboards.Object["data"]), `"kube"`) {
		t.Error("the variable job has not the job of the Loki sink")
	}
	files := rules.Object["data"].(map[string]any)
	for _, name := range []string{"hindsight-events.yaml", "hindsight-recorded.yaml"} {
		data, _ := files[name].(string)
		var f struct{ Groups []any }
		if err := yaml.Unmarshal([]byte(data), &f); err != nil || len(f.Groups) != 1 || !strings.Contains(data, `job="kube"`) {
			t.Errorf("%s has %d groups: %v", name, len(f.Groups), err)
		}
	}
}
