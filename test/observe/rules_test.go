package observe

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const rulesDir = "../../deploy/alerts"

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func rules(t *testing.T, name string) (all []rule) {
	t.Helper()
	var f ruleFile
	readYAML(t, filepath.Join(rulesDir, name), &f)
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no rules", name)
	}
	return all
}

func ruleQueries(t *testing.T, name, language string) (all []query) {
	t.Helper()
	for _, r := range rules(t, name) {
		all = append(all, query{where: r.Alert, expr: r.Expr, language: language})
	}
	return all
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// Every alert has a runbook and a panel, and every rule a comment with its reason.
func TestRulesHaveARunbook(t *testing.T) {
	docs, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(docs), -1) {
		headings = append(headings, strings.ReplaceAll(strings.ToLower(m[1]), " ", "-"))
	}
	all := map[string]dashboard{}
	for _, d := range dashboards(t) {
		all[d.UID] = d
	}
	templated := regexp.MustCompile(`\{\{[^}]*\}\}`)
	for _, name := range []string{"hindsight.rules.yaml", "events.rules.yaml"} {
		text, err := os.ReadFile(filepath.Join(rulesDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules(t, name) {
			path, anchor, _ := strings.Cut(r.Annotations["runbook"], "#")
			if path != "docs/operations.md" || anchor != strings.ToLower(r.Alert) || !slices.Contains(headings, anchor) {
				t.Errorf("%s: there is no runbook at %q", r.Alert, r.Annotations["runbook"])
			}
			if r.Annotations["summary"] == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) {
				t.Errorf("%s: summary %q, severity %q", r.Alert, r.Annotations["summary"], r.Labels["severity"])
			}
			// The panel that shows what the alert is about.
			if err := leads(templated.ReplaceAllString(r.Annotations["dashboard"], "x"), all); err != nil || !strings.Contains(r.Annotations["dashboard"], "viewPanel=") {
				t.Errorf("%s: the link %q: %v", r.Alert, r.Annotations["dashboard"], err)
			}
			if !strings.Contains(string(text), "- alert: "+r.Alert+"\n        # ") {
				t.Errorf("%s: no comment with a reason", r.Alert)
			}
		}
	}
}

// The panel that an alert links to shows a metric of the alert, or Events of its reasons.
func TestAlertsLinkToTheirPanel(t *testing.T) {
	subjects := regexp.MustCompile(`hindsight_\w+|reason=~?"([^"]+)"`)
	panelLink := regexp.MustCompile(`/d/([a-z-]+)\?viewPanel=(\d+)`)
	for _, name := range []string{"hindsight.rules.yaml", "events.rules.yaml"} {
		for _, r := range rules(t, name) {
			m := panelLink.FindStringSubmatch(r.Annotations["dashboard"])
			if m == nil {
				t.Errorf("%s links to no panel: %q", r.Alert, r.Annotations["dashboard"])
				continue
			}
			shown := ""
			for _, d := range dashboards(t) {
				for _, p := range d.Panels {
					if d.UID == m[1] && strconv.Itoa(p.ID) == m[2] {
						for _, q := range p.Targets {
							shown += q.Expr
						}
					}
				}
			}
			found := false
			for _, s := range subjects.FindAllStringSubmatch(r.Expr, -1) {
				for _, subject := range strings.Split(cmp.Or(s[1], s[0]), "|") {
					found = found || regexp.MustCompile(`\b`+subject+`\b`).MatchString(shown)
				}
			}
			if !found {
				t.Errorf("%s: %s links to a panel with %s", r.Alert, r.Expr, shown)
			}
		}
	}
}

// Every alert of Hindsight itself has a case in which it fires and one in which
// it does not; promtool runs them (see the tests with the tag e2e).
func TestRulesHaveUnitTests(t *testing.T) {
	var f struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, filepath.Join(rulesDir, "hindsight.rules.test.yaml"), &f)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range f.Tests {
		for _, c := range test.AlertRuleTest {
			fires[c.Alertname] = fires[c.Alertname] || len(c.ExpAlerts) > 0
			silent[c.Alertname] = silent[c.Alertname] || len(c.ExpAlerts) == 0
		}
	}
	for _, r := range rules(t, "hindsight.rules.yaml") {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: fires in a unit test: %v; is silent in one: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}
