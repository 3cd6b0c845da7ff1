//go:build e2e

package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/event/format"
	eventquery "github.com/hindsight-events/hindsight/query"
)

// logQLParses checks every LogQL expression that is shipped, documented or generated against
// Grafana's grammar.
func logQLParses(t *testing.T, dir string) {
	all := lokiQueries(t, time.Now())
	all = append(all, documentedLogQL(t)...)
	all = append(all, generatedLogQL(t)...)
	t.Logf("%d expressions", len(all))
	// Else a parser that accepts everything would pass.
	const mistake = "a mistake"
	for _, expr := range []string{
		`{a="b"} |`, `{a=b}`, `{a="b"`, `rate({a="b"}[5m]`, `sum by (x) (rate({a="b"}))`, `{a="b"} | json x="y" z`, `up`, ``,
	} {
		all = append(all, query{where: mistake, expr: expr})
	}
	for i, at := range parseLogQL(t, dir, all) {
		q := all[i]
		switch {
		case q.where == mistake && at < 0:
			t.Errorf("the parser accepts %q", q.expr)
		case q.where != mistake && at >= 0:
			t.Errorf("%s: syntax error at offset %d of\n\t%s", q.where, at, q.expr)
		}
	}
}

// parseLogQL returns, for each expression, the offset of its first syntax error, or -1.
func parseLogQL(t *testing.T, dir string, all []query) (offsets []int) {
	t.Helper()
	var exprs []string
	for _, q := range all {
		exprs = append(exprs, q.expr)
	}
	in, err := json.Marshal(exprs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := npm(t, dir, bytes.NewReader(in), "run", "--silent", "check")
	if err != nil {
		t.Fatalf("npm run check: %v\n%s", err, out)
	}
	if err := json.Unmarshal(out, &offsets); err != nil || len(offsets) != len(all) {
		t.Fatalf("the parser answers %q for %d expressions: %v", out, len(all), err)
	}
	return offsets
}

var (
	// A stream selector, but not a PromQL one, which follows a name.
	selectorPattern = regexp.MustCompile("(?:^|[^\\w:])\\{\\s*[a-z_]+\\s*(?:=~|!~|!=|=)\\s*[\"`]")
	fencePattern    = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")
	// Code in a table has its pipes escaped.
	codePattern = regexp.MustCompile("`[^`]+`")
	// An expression that begins a line: the prompt of the demo may precede it.
	startPattern = regexp.MustCompile(`(?s)^\s*(?:logql> )?(\{\s*[a-z_]+\s*(?:=~|!~|!=|=).*|[a-z_]+(?: by \([^)]*\))? ?\(.*)$`)
)

// documentedLogQL returns the LogQL of README.md and docs: in code spans and code blocks.
func documentedLogQL(t *testing.T) (all []query) {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../../README.md", "../../deploy/*/README.md", "../../deploy/helm/*/README.md", "../../examples/*/README.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, more...)
	}
	found := map[string]int{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, expr := range logQLOf(string(data)) {
			all = append(all, query{where: path, expr: expr})
			found[filepath.Base(path)]++
		}
	}
	// Else documents in another form would not be read.
	for name, least := range map[string]int{"README.md": 1, "queries.md": 12, "operations.md": 8} {
		if found[name] < least {
			t.Errorf("%d expressions are found in %s, want %d at least", found[name], name, least)
		}
	}
	return all
}

// logQLOf returns the expressions in a Markdown document.
func logQLOf(text string) (all []string) {
	for _, block := range fencePattern.FindAllStringSubmatch(text, -1) {
		lines := strings.Split(block[1], "\n")
		for i := 0; i < len(lines); i++ {
			m := startPattern.FindStringSubmatch(lines[i])
			if m == nil {
				continue
			}
			expr := m[1]
			// An expression that is broken after a parenthesis continues in the next line.
			for ; strings.Count(expr, "(") > strings.Count(expr, ")") && i+1 < len(lines); i++ {
				expr += "\n" + lines[i+1]
			}
			if selectorPattern.MatchString(expr) {
				all = append(all, expr)
			}
		}
	}
	for _, code := range codePattern.FindAllString(fencePattern.ReplaceAllString(text, ""), -1) {
		expr := strings.ReplaceAll(strings.TrimSpace(strings.Trim(code, "`")), `\|`, "|")
		if startPattern.MatchString(expr) && selectorPattern.MatchString(expr) {
			all = append(all, expr)
		}
	}
	return all
}

func TestLogQLOfDocuments(t *testing.T) {
	text := strings.Join([]string{
		"Ask `{a=\"b\"} | c=\"d\"`, or `sum(rate({a=\"b\"}[5m]))`; not `metric{a=\"b\"}`, `{\"a\":1}`, `{…}` or `match: '{a=\"b\"}'`.",
		"| table | `{a=\"b\"} \\| c=\"d\"` |",
		"It continues in `{a=\"b\",", "c=\"d\"}` too.",
		"```console", "$ make demo", "  logql> topk(5, sum by (a) (", "    rate({a=\"b\"}[1h])))", "    73 {a=\"b\"}", "drop: ['{a=\"b\"}']", "```",
	}, "\n")
	want := []string{
		"topk(5, sum by (a) (\n    rate({a=\"b\"}[1h])))",
		`{a="b"} | c="d"`, `sum(rate({a="b"}[5m]))`, `{a="b"} | c="d"`, "{a=\"b\",\nc=\"d\"}",
	}
	if got := logQLOf(text); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// generatedLogQL returns the output of `hindsight query --logql` for all kinds of selections and
// sink layouts. The queries of query and audit come from the same function.
func generatedLogQL(t *testing.T) (all []query) {
	t.Helper()
	bare := func(f format.Format) eventquery.Layout {
		l := eventquery.DefaultLayout()
		l.Format, l.Metadata = f, false
		return l
	}
	own := eventquery.DefaultLayout()
	own.Job, own.Labels, own.Fixed = "events", map[string]string{"ns": "namespace", "kind": "kind"}, map[string]string{"team": "a\"b\\c`d"}
	layouts := map[string]eventquery.Layout{
		"default": eventquery.DefaultLayout(), "own labels": own,
		"logfmt": bare(format.Logfmt), "json": bare(format.JSON), "eventrouter": bare(format.EventRouter), "text": bare(format.Text),
	}
	filters := []eventquery.Filter{
		{},
		{Namespace: "prod", Types: []string{"warning"}},
		{Namespace: "prod", For: "deploy/web"},
		{For: "certificates.cert-manager.io/a"},
		{Reasons: []string{"BackOff"}},
		{Reasons: []string{"A", "B.c"}},
		{Selector: `{reason!="Pulled"}`},
		{Selector: `{reason!~"Pulled|Created", kind!="Job", uid="1", event_uid="2", event_version="3", count=~"[0-9]{2,}"}`},
		{Selector: `{job=~".+", team="b", component="kubelet"}`},
		{Cluster: "eu", Node: "n-1"},
	}
	for _, text := range []string{"exceeded quota", "a|b", `say "hi"`, "back`tick", "both \" and `", `C:\\dir`, "(?i)oom", "日本", `\d+\.\d+`, "a\nb", "a/b}{c"} {
		filters = append(filters, eventquery.Filter{Grep: text}, eventquery.Filter{Selector: "{message=~" + fmt.Sprintf("%q", text) + "}"}, eventquery.Filter{Cluster: text})
	}
	for name, layout := range layouts {
		for _, f := range filters {
			s, err := eventquery.NewSelection(f)
			if err != nil {
				t.Fatalf("%+v: %v", f, err)
			}
			where := fmt.Sprintf("query %+v of a sink with the layout %s", f, name)
			all = append(all, query{where: where, expr: s.LogQL(layout)}, query{where: where + ", its streams", expr: s.Streams(layout)})
		}
	}
	return all
}
