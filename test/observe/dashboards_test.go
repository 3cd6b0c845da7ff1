package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// dashboard holds the tested fields of a dashboard.
type dashboard struct {
	path string

	ID, Inputs  any
	UID, Title  string
	Panels      []panel
	Links       []link
	Templating  struct{ List []variable }
	Annotations struct {
		List []struct {
			Name, Expr   string
			Datasource   datasource
			Hide, Enable bool
			Placement    *string
			Target       target
		}
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	GridPos                  struct{ X, Y, W, H int }
	MaxDataPoints            int
	Targets                  []target
	FieldConfig              struct {
		Defaults struct {
			NoValue string
			Links   []link
			Custom  struct{ DrawStyle string }
		}
		Overrides []struct {
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
}

// links returns the links of a panel's values.
func (p *panel) links(t *testing.T) []link {
	t.Helper()
	all := p.FieldConfig.Defaults.Links
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if property.ID != "links" {
				continue
			}
			var more []link
			if err := json.Unmarshal(property.Value, &more); err != nil {
				t.Fatal(err)
			}
			all = append(all, more...)
		}
	}
	return all
}

type link struct{ Title, URL string }

type target struct {
	RefID, Expr, QueryType string
	Instant                bool
	MaxLines               int
	Datasource             datasource
}

type variable struct {
	Type, Name, AllValue string
	Datasource           datasource
	Query                json.RawMessage
}

type datasource struct{ Type, UID string }

// query is an expression of a dashboard or a rule.
type query struct {
	where, expr string
	language    string        // the type of the datasource
	log         bool          // whether it finds lines, not values
	step        time.Duration // between the values of a range; 0 for a single value
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

// chosen replaces variables as Grafana does when "All" is chosen, in a range that ends at a time.
func chosen(end time.Time, length, step time.Duration) *strings.Replacer {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%ds", int(d.Seconds())) }
	return strings.NewReplacer(
		"$__range", seconds(length), "$__auto", seconds(step), "$__rate_interval", "1m", "${__to:date:seconds}", strconv.FormatInt(end.Unix(), 10),
		"$cluster", ".*", "$namespace", ".*", "$reason", ".*", "$kind", ".*", "$name", ".*", "$node", ".*", "$level", ".*", "${text:raw}", "",
		`job=~"$job", cluster`, `job=~"hindsight", cluster`, "$job", ".*", "$instance", ".*",
	)
}

// stepFor returns the interval of a panel's points, which Grafana rounds:
// https://github.com/grafana/grafana/blob/v12.3.0/packages/grafana-data/src/datetime/rangeutil.ts
func stepFor(length time.Duration, points int) time.Duration {
	exact := length / time.Duration(max(points, 1))
	step := 10 * time.Second
	for _, s := range []struct{ from, step time.Duration }{
		{12500 * time.Millisecond, 15 * time.Second},
		{17500 * time.Millisecond, 20 * time.Second},
		{25 * time.Second, 30 * time.Second},
		{45 * time.Second, time.Minute},
		{90 * time.Second, 2 * time.Minute},
		{210 * time.Second, 5 * time.Minute},
		{450 * time.Second, 10 * time.Minute},
		{750 * time.Second, 15 * time.Minute},
		{1050 * time.Second, 20 * time.Minute},
		{1500 * time.Second, 30 * time.Minute},
		{45 * time.Minute, time.Hour},
		{90 * time.Minute, 2 * time.Hour},
		{150 * time.Minute, 3 * time.Hour},
		{270 * time.Minute, 6 * time.Hour},
		{9 * time.Hour, 12 * time.Hour},
		{24 * time.Hour, 24 * time.Hour},
	} {
		if exact >= s.from {
			step = s.step
		}
	}
	return step
}

// queries returns the queries of all panels and annotations, as Grafana sends them for a range that
// ends at a time.
func (d *dashboard) queries(end time.Time, length time.Duration) (all []query) {
	for _, p := range d.Panels {
		step := stepFor(length, p.MaxDataPoints)
		replacer := chosen(end, length, step)
		for _, q := range p.Targets {
			made := query{
				where: fmt.Sprintf("%s, panel %d %q, query %s", d.path, p.ID, p.Title, q.RefID),
				expr:  replacer.Replace(q.Expr), language: q.Datasource.Type, log: p.Type == "logs",
			}
			if q.QueryType == "range" && !made.log {
				made.step = step
			}
			all = append(all, made)
		}
	}
	replacer := chosen(end, length, 0)
	for _, a := range d.Annotations.List {
		all = append(all, query{where: fmt.Sprintf("%s, annotation %q", d.path, a.Name), expr: replacer.Replace(a.Expr), language: a.Datasource.Type, log: true})
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
			if v.Type == "query" || v.Type == "adhoc" {
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

// The dashboard has variables for on-call questions, and a switch for its annotations.
func TestEventsCanBeChosen(t *testing.T) {
	d := eventsDashboard(t)
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
	}
	for _, want := range []string{"loki", "job", "cluster", "namespace", "reason", "level", "kind", "name", "node", "text", "filters"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s has the variables %v, want %s as well", d.path, names, want)
		}
	}
	if len(d.Annotations.List) != 1 {
		t.Fatalf("%s has %d annotations", d.path, len(d.Annotations.List))
	}
	// Grafana draws no switch for one that is hidden, or placed in a menu.
	if a := d.Annotations.List[0]; a.Hide || a.Placement != nil || a.Enable || a.Target.MaxLines == 0 || a.Target.Expr != a.Expr {
		t.Errorf("the annotation %+v", a)
	}
}

func eventsDashboard(t *testing.T) dashboard {
	t.Helper()
	for _, d := range dashboards(t) {
		if d.path == "events.json" {
			return d
		}
	}
	t.Fatal("no events.json")
	return dashboard{}
}

// Links, such as those of alerts, name a panel by its id. So an id is never changed or used again:
// append to this list, and leave removed panels in it.
var panelIDs = map[string]string{
	"events.json":    "1 Age, 2 Gaps, 3 Warnings, 4 Events, 10 Warnings by namespace and reason, 11 Reasons, 20 Who preempted whom, 30 Events, 40 Crash loops, 41 Scheduling, 42 Images, 43 Evictions, 44 Nodes, 45 Volumes, 46 Probes, 47 Autoscaling, 48 Preemptions, 49 Memory, 50 Creation, 51 Jobs, 60 Namespaces, 61 Kinds",
	"hindsight.json": "1 Leader, 2 Contact, 3 Lag, 4 Canary, 5 Journal, 6 Gaps, 7 Dropped, 8 Parked, 10 Read, journaled, accepted, 11 Dropped, skipped, changed, 12 Metadata, 13 Waiting, 20 Replicas, 21 Contact, 22 Watches, 23 Lag, 24 Retries, 25 Behind, 26 Parked, 27 Parked bytes, 28 Dropped, 29 Gaps, 30 Journal, 31 Journal content, 32 Blocked, 33 Leader, 34 Resent, parked, 35 Checkpoint, 36 Canary, 37 Configuration, 38 Renewal, 40 Memory, 41 CPU",
}

func TestPanelsKeepTheirIDs(t *testing.T) {
	for _, d := range dashboards(t) {
		panels := slices.Clone(d.Panels)
		slices.SortFunc(panels, func(a, b panel) int { return a.ID - b.ID })
		var ids []string
		for i, p := range panels {
			if p.ID <= 0 || i > 0 && p.ID == panels[i-1].ID {
				t.Errorf("%s: panel %q has the id %d", d.path, p.Title, p.ID)
			}
			if p.Type != "row" {
				ids = append(ids, fmt.Sprintf("%d %s", p.ID, p.Title))
			}
		}
		if got := strings.Join(ids, ", "); got != panelIDs[d.path] {
			t.Errorf("%s has the panels\n\t%s\nwant\n\t%s", d.path, got, panelIDs[d.path])
		}
	}
}

// What is cut off or cannot be seen at a width of 1280 pixels, 53 for a column, without the menu.
func TestPanelsCanBeRead(t *testing.T) {
	for _, d := range dashboards(t) {
		for _, p := range d.Panels {
			where := fmt.Sprintf("%s, panel %d %q", d.path, p.ID, p.Title)
			const letter, margin = 8, 60 // pixels; the margin has the icon of the description
			switch width := p.GridPos.W * 1248 / 24; {
			case len(p.Title)*letter+margin > width:
				t.Errorf("%s: its title is wider than its %d pixels", where, width)
			case p.Type == "stat" && strings.Contains(p.Title, " "):
				t.Errorf("%s: the title of a number is one word", where)
			case p.Type == "row":
				continue
			}
			if p.Type != "logs" && p.FieldConfig.Defaults.NoValue == "" || p.Description == "" {
				t.Errorf("%s does not say what it shows, or that there is nothing", where)
			}
			if d.path == "events.json" && p.FieldConfig.Defaults.Custom.DrawStyle == "bars" && p.MaxDataPoints != 60 {
				t.Errorf("%s has %d points: its bars have the wrong width", where, p.MaxDataPoints)
			}
		}
	}
}

// Loki refuses a query with more than 500 series in any part, and names of objects are any number.
// So results are grouped by few labels only, and what is grouped by two, or by namespaces, is in a
// topk of a count, which Loki evaluates as a whole.
func TestSeriesAreBounded(t *testing.T) {
	whole := regexp.MustCompile(`topk\(\d+, (?:count by \([^)]*\) \()?last_over_time\(.*?\]\) by \([^)]*\)\)`)
	few := regexp.MustCompile(`\bby \((reason|kind|job|by_namespace, by_workload, namespace, workload)\)`)
	d := eventsDashboard(t)
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			rest := few.ReplaceAllString(whole.ReplaceAllString(q.Expr, ""), "")
			switch {
			case p.Type == "logs":
				if q.MaxLines == 0 || q.MaxLines > 1000 {
					t.Errorf("%s, panel %d %q has up to %d lines", d.path, p.ID, p.Title, q.MaxLines)
				}
			case strings.Contains(rest, " by ("), !strings.Contains(q.Expr, "sum") && !strings.Contains(q.Expr, "max(") && !strings.Contains(q.Expr, "count "):
				t.Errorf("%s, panel %d %q may have any number of series: %s", d.path, p.ID, p.Title, q.Expr)
			}
		}
	}
}

// Hindsight's own canary is the noisiest object of a quiet cluster. One query is about it.
func TestCanaryIsLeftOut(t *testing.T) {
	selectors := regexp.MustCompile(`\{job=[^}]*\}`)
	only := 0
	for _, q := range lokiQueries(t, time.Now()) {
		if !strings.HasPrefix(q.where, "events.json") {
			continue // a rule, of given reasons
		}
		for _, selector := range selectors.FindAllString(q.expr, -1) {
			switch {
			case strings.Contains(selector, `reason="HindsightCanary"`) && strings.Contains(q.where, `"Age"`):
				only++
			case !strings.Contains(selector, `reason!="HindsightCanary"`):
				t.Errorf("%s has the canary: %s", q.where, selector)
			}
		}
	}
	if only != 1 {
		t.Errorf("%d queries are about the canary, want one", only)
	}
}

// Links lead to dashboards, panels and variables that exist, and to queries with the syntax that
// Explore has.
func TestLinksLeadSomewhere(t *testing.T) {
	all := map[string]dashboard{}
	for _, d := range dashboards(t) {
		all[d.UID] = d
	}
	for _, d := range dashboards(t) {
		found := 0
		check := func(where, url string) {
			found++
			if err := leads(url, all); err != nil {
				t.Errorf("%s: the link %s: %v", where, url, err)
			}
		}
		for _, l := range d.Links {
			check(d.path, l.URL)
		}
		for _, p := range d.Panels {
			for _, l := range p.links(t) {
				if l.Title == "" {
					t.Errorf("%s, panel %q: a link without a title", d.path, p.Title)
				}
				check(fmt.Sprintf("%s, panel %d %q", d.path, p.ID, p.Title), l.URL)
			}
		}
		if d.path == "events.json" && found < 20 || found == 0 {
			t.Errorf("%s has %d links", d.path, found)
		}
	}
}

var (
	linkPath      = regexp.MustCompile(`^/(?:d/([a-z-]+)|(explore))(?:\?(.*))?$`)
	linkVariable  = regexp.MustCompile(`^\$\{(\w+):queryparam\}$`)
	anyVariable   = regexp.MustCompile(`\$\{[^}]+\}`)
	rightVariable = regexp.MustCompile(`^\$\{(__(url_time_range|value\.raw|from|to|field\.labels\.\w+|data\.fields(\.\w+|\["[a-z ]+"\]))|loki|job:pipe|\w+:queryparam)\}$`)
)

// leads checks a link within Grafana.
func leads(address string, all map[string]dashboard) error {
	m := linkPath.FindStringSubmatch(address)
	if m == nil {
		return errors.New("no path of a dashboard or of Explore")
	}
	for _, v := range anyVariable.FindAllString(address, -1) {
		if !rightVariable.MatchString(v) {
			return fmt.Errorf("%s is no variable of a link", v)
		}
	}
	if m[2] == "explore" {
		return leadsToExplore(m[3])
	}
	d, ok := all[m[1]]
	if !ok {
		return fmt.Errorf("no dashboard %q", m[1])
	}
	has := func(name string) bool {
		return slices.ContainsFunc(d.Templating.List, func(v variable) bool { return v.Name == name })
	}
	for _, part := range strings.Split(m[3], "&") {
		if v := linkVariable.FindStringSubmatch(part); v != nil {
			if !has(v[1]) {
				return fmt.Errorf("no variable %s", v[1])
			}
			continue
		}
		if part == "${__url_time_range}" || part == "from=${__from}" || part == "to=${__to}" || m[3] == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		switch variable, isVariable := strings.CutPrefix(name, "var-"); {
		case isVariable && !has(variable):
			return fmt.Errorf("no variable %s", variable)
		case name == "viewPanel" && !slices.ContainsFunc(d.Panels, func(p panel) bool { return strconv.Itoa(p.ID) == value }):
			return fmt.Errorf("no panel %s", value)
		case !isVariable && name != "viewPanel":
			return fmt.Errorf("parameter %q", name)
		}
	}
	return nil
}

// leadsToExplore checks the state of Explore, in which variables are not encoded.
func leadsToExplore(parameters string) error {
	panes, ok := strings.CutPrefix(parameters, "schemaVersion=1&panes=")
	if !ok {
		return errors.New("no panes")
	}
	text, err := url.PathUnescape(panes)
	if err != nil {
		return err
	}
	var state map[string]struct {
		Datasource string
		Queries    []target
		Range      struct{ From, To string }
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		return err
	}
	for _, pane := range state {
		if pane.Datasource != "${loki}" || len(pane.Queries) != 1 || pane.Range.From != "${__from}" || pane.Range.To != "${__to}" {
			return fmt.Errorf("%+v", pane)
		}
		if !strings.HasPrefix(pane.Queries[0].Expr, `{job=~"${job:pipe}"} `) || pane.Queries[0].Datasource.UID != "${loki}" {
			return fmt.Errorf("%+v", pane.Queries)
		}
	}
	if len(state) != 1 {
		return fmt.Errorf("%d panes", len(state))
	}
	return nil
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
		all = append(all, d.queries(time.Now(), time.Hour)...)
	}
	all = append(all, ruleQueries(t, "hindsight.rules.yaml", "prometheus")...)
	return slices.DeleteFunc(all, func(q query) bool { return q.language != "prometheus" })
}

// lokiQueries returns all of them, for the hour before a time.
func lokiQueries(t *testing.T, end time.Time) (all []query) {
	t.Helper()
	for _, d := range dashboards(t) {
		all = append(all, d.queries(end, time.Hour)...)
	}
	all = append(all, ruleQueries(t, "events.rules.yaml", "loki")...)
	return slices.DeleteFunc(all, func(q query) bool { return q.language != "loki" })
}
