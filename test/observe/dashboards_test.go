package observe

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// dashboard holds the tested fields of a dashboard.
type dashboard struct {
	path string

	ID, Inputs  any
	UID, Title  string
	Panels      []panel
	Templating  struct{ List []variable }
	Annotations struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
}

type panel struct {
	Type, Title string
	Datasource  datasource
	GridPos     struct{ X, Y, W, H int }
	Targets     []target
}

type target struct {
	RefID, Expr, QueryType string
	Instant                bool
	Datasource             datasource
}

type variable struct {
	Type, Name string
	Datasource datasource
	Query      json.RawMessage
}

type datasource struct{ Type, UID string }

// query is an expression of a dashboard or a rule.
type query struct {
	where, expr string
	language    string // the type of the datasource
	log         bool   // whether it finds lines, not values
}

const dashboardsDir = "../../deploy/grafana"

func dashboards(t *testing.T) []dashboard {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dashboardsDir, "*.json"))
	if err != nil || len(paths) != 2 {
		t.Fatalf("%d dashboards, want two: %v", len(paths), err)
	}
	var all []dashboard
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d := dashboard{path: filepath.Base(path)}
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, d)
	}
	return all
}

// chosen replaces variables as Grafana does when "All" is chosen.
var chosen = strings.NewReplacer(
	"$__range", "1h", "$__auto", "5m", "$__rate_interval", "1m",
	"$cluster", ".*", "$namespace", ".*", "$reason", ".*", "$kind", ".*", "$name", ".*",
	"$job", ".*", "$instance", ".*",
)

// queries returns the queries of all panels and annotations, as Grafana sends
// them.
func (d *dashboard) queries() (all []query) {
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all = append(all, query{
				where: fmt.Sprintf("%s, panel %q, query %s", d.path, p.Title, q.RefID),
				expr:  chosen.Replace(q.Expr), language: q.Datasource.Type, log: p.Type == "logs",
			})
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, query{fmt.Sprintf("%s, annotation %q", d.path, a.Name), chosen.Replace(a.Expr), a.Datasource.Type, true})
	}
	return all
}

// A dashboard can be imported anywhere: it is bound to no datasource and no
// number of another Grafana.
func TestDashboardsArePortable(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range dashboards(t) {
		if d.ID != nil {
			t.Errorf("%s has the id %v", d.path, d.ID)
		}
		if !regexp.MustCompile(`^[a-z][a-z-]{3,39}$`).MatchString(d.UID) || uids[d.UID] || d.Title == "" {
			t.Errorf("%s: uid %q, title %q", d.path, d.UID, d.Title)
		}
		uids[d.UID] = true
		declared := map[string]string{}
		for _, v := range d.Templating.List {
			declared[v.Name] = v.Type
		}
		isVariable := func(where string, s datasource) {
			name := strings.TrimSuffix(strings.TrimPrefix(s.UID, "${"), "}")
			if s.UID != "${"+name+"}" || declared[name] != "datasource" || s.Type != name {
				t.Errorf("%s: datasource %+v is not a variable", where, s)
			}
		}
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				isVariable(fmt.Sprintf("%s, variable %s", d.path, v.Name), v.Datasource)
			}
			usesDeclared(t, fmt.Sprintf("%s, variable %s", d.path, v.Name), string(v.Query), declared)
		}
		for _, a := range d.Annotations.List {
			isVariable(fmt.Sprintf("%s, annotation %s", d.path, a.Name), a.Datasource)
		}
		for _, p := range d.Panels {
			where := fmt.Sprintf("%s, panel %q", d.path, p.Title)
			if p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s has no title or no query", where)
			}
			for _, q := range p.Targets {
				isVariable(where, q.Datasource)
				if q.Datasource != p.Datasource {
					t.Errorf("%s: the panel has the datasource %+v, its query %+v", where, p.Datasource, q.Datasource)
				}
				usesDeclared(t, where, q.Expr, declared)
			}
		}
		fits(t, &d)
	}
}

// usesDeclared checks that no variable is missing.
func usesDeclared(t *testing.T, where, text string, declared map[string]string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(text, -1) {
		if declared[m[1]] == "" && !strings.HasPrefix(m[1], "__") {
			t.Errorf("%s: there is no variable %s", where, m[1])
		}
	}
}

// fits checks that no panel covers another or leaves the grid.
func fits(t *testing.T, d *dashboard) {
	t.Helper()
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%s: panel %q covers %q or leaves the grid", d.path, p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// The dashboard has variables for on-call questions.
func TestEventsCanBeChosen(t *testing.T) {
	for _, d := range dashboards(t) {
		if d.path != "events.json" {
			continue
		}
		var names []string
		for _, v := range d.Templating.List {
			names = append(names, v.Name)
		}
		for _, want := range []string{"loki", "cluster", "namespace", "reason", "kind", "name"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s has the variables %v, want %s as well", d.path, names, want)
			}
		}
		if len(d.Annotations.List) == 0 {
			t.Errorf("%s has no annotation", d.path)
		}
	}
}

// A query for an unknown metric would silently show an empty panel, and an alert on it never fires.
func TestMetricsOfQueriesExist(t *testing.T) {
	metrics := programMetrics(t)
	for _, general := range []string{"process_resident_memory_bytes", "process_cpu_seconds_total"} {
		metrics[general] = []string{}
	}
	used := map[string]bool{}
	for _, q := range prometheusQueries(t) {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(q.expr)
		if err != nil {
			t.Errorf("%s: %s: %v", q.where, q.expr, err)
			continue
		}
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			switch node := node.(type) {
			case *parser.VectorSelector:
				used[node.Name] = true
				for _, m := range node.LabelMatchers {
					if m.Name != model.MetricNameLabel {
						hasLabel(t, q, metrics, node.Name, m.Name)
					}
				}
				if metrics[node.Name] == nil {
					t.Errorf("%s: there is no metric %s", q.where, node.Name)
				}
			case *parser.AggregateExpr:
				parser.Inspect(node.Expr, func(inner parser.Node, _ []parser.Node) error {
					if s, ok := inner.(*parser.VectorSelector); ok && !node.Without {
						for _, label := range node.Grouping {
							hasLabel(t, q, metrics, s.Name, label)
						}
					}
					return nil
				})
			}
			return nil
		})
	}
	for name := range metrics {
		if !used[name] && name != "hindsight_config_last_reload_success_timestamp_seconds" {
			t.Errorf("%s is in no dashboard and no rule", name)
		}
	}
}

// hasLabel checks that a metric has a label, or that scraping adds it.
func hasLabel(t *testing.T, q query, metrics map[string][]string, name, label string) {
	t.Helper()
	if !slices.Contains([]string{"job", "instance", "cluster", "namespace"}, label) && !slices.Contains(metrics[name], label) {
		t.Errorf("%s: %s has no label %s", q.where, name, label)
	}
}

func prometheusQueries(t *testing.T) (all []query) {
	t.Helper()
	for _, d := range dashboards(t) {
		all = append(all, d.queries()...)
	}
	all = append(all, ruleQueries(t, "hindsight.rules.yaml", "prometheus")...)
	return slices.DeleteFunc(all, func(q query) bool { return q.language != "prometheus" })
}

func lokiQueries(t *testing.T) (all []query) {
	t.Helper()
	for _, d := range dashboards(t) {
		all = append(all, d.queries()...)
	}
	all = append(all, ruleQueries(t, "events.rules.yaml", "loki")...)
	return slices.DeleteFunc(all, func(q query) bool { return q.language != "loki" })
}
