package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	sdk "github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Generated files have one source, and are not edited.
func TestFilesAreGenerated(t *testing.T) {
	files := shipped()
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("deploy/%s is not as generated; run\n\tgo run ./deploy/generate", name)
		}
	}
	// A folder that Grafana provisions has nothing but dashboards, and no file is left behind.
	for _, dir := range []string{"grafana", "helm/hindsight/generated"} {
		entries, err := os.ReadDir(filepath.Join("..", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if files[dir+"/"+e.Name()] == nil {
				t.Errorf("deploy/%s/%s is not generated", dir, e.Name())
			}
		}
	}
}

// The types of Grafana's Foundation SDK are Grafana's schema, with the options of each kind of
// panel.
func TestDashboardsHaveGrafanasSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for name, data := range own(defaults()) {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		var d sdk.Dashboard
		if problems := problemsOf(d.UnmarshalJSONStrict(data)); problems != "" {
			t.Errorf("%s: %s", name, problems)
			continue
		}
		if problems := problemsOf(d.Validate()); problems != "" {
			t.Errorf("%s: %s", name, problems)
		}
		// Else a decoder that ignores what it does not know would pass.
		bad := bytes.Replace(data, []byte(`"showValue"`), []byte(`"showValues"`), 1)
		if problemsOf(new(sdk.Dashboard).UnmarshalJSONStrict(bad)) == "" {
			t.Errorf("%s: an unknown option is accepted", name)
		}
	}
}

// problemsOf is empty without an error: the SDK returns an empty list of errors, which is not nil.
func problemsOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The names of labels and the other parameters reach every query, link and rule.
func TestParameters(t *testing.T) {
	p := parameters{Job: "kube", Cluster: "k8s_cluster", Namespace: "ns", Reason: "why", Grafana: "https://grafana.example.com/g", Runbooks: "https://docs.example.com/operations"}
	old := regexp.MustCompile(`job="hindsight"|\b(cluster|namespace|reason)(=|!)|by \((cluster|namespace|reason)\b|labels\.(cluster|namespace|reason)|\.(namespace|reason)\b|@|'(/d/|docs)`)
	for name, data := range own(p) {
		text := string(data)
		if name == "events.json" || strings.HasPrefix(name, "events.") {
			text = strings.ReplaceAll(text, "by_namespace=", "") // a name of our own
			_, text, _ = strings.Cut(text, "\n")                 // comments
			for _, found := range old.FindAllString(variableInLink.ReplaceAllString(text, ""), -1) {
				t.Errorf("%s has still %q", name, found)
			}
		}
		if alerts := strings.Count(text, "- alert: "); alerts != strings.Count(text, "dashboard: 'https://grafana.example.com/g/d/hindsight") ||
			alerts != strings.Count(text, "runbook: 'https://docs.example.com/operations#") {
			t.Errorf("%s: not every alert has links to the addresses", name)
		}
	}
}

// The names of variables do not depend on the names of labels.
var variableInLink = regexp.MustCompile(`var-[a-z]+=`)
