// Program generate writes Grafana dashboards and rules for Prometheus and Loki, from one
// description of their queries:
//
//	go run ./deploy/generate             # the files in deploy, with the defaults
//	go run ./deploy/generate -help       # the parameters of files of your own, for -out
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// parameters are what differs between installations.
type parameters struct {
	Job, Cluster, Namespace, Reason string // the label job's value; names of the other labels
	Grafana                         string // address of Grafana, without a slash at its end; empty: links are paths
	Runbooks                        string // address of docs/operations.md
}

func defaults() parameters {
	return parameters{Job: "hindsight", Cluster: "cluster", Namespace: "namespace", Reason: "reason", Runbooks: "docs/operations.md"}
}

// placeholders are the parameters of the chart's copies. Its templates replace them with values.
func placeholders() parameters {
	p := defaults()
	p.Job, p.Grafana, p.Runbooks = "@job@", "@grafana@", "@runbooks@"
	return p
}

func main() {
	p := defaults()
	flag.StringVar(&p.Job, "job", p.Job, "loki.job of the configuration, the value of the label job")
	flag.StringVar(&p.Cluster, "cluster-label", p.Cluster, "the name of the label for the cluster")
	flag.StringVar(&p.Namespace, "namespace-label", p.Namespace, "the name of the label for the namespace")
	flag.StringVar(&p.Reason, "reason-label", p.Reason, "the name of the label for the reason")
	flag.StringVar(&p.Grafana, "grafana", p.Grafana, "Grafana's address, for links from alerts to panels")
	flag.StringVar(&p.Runbooks, "runbooks", p.Runbooks, "the address of docs/operations.md, for links from alerts")
	out := flag.String("out", "", "write the five files of these parameters into this folder, instead of all in deploy")
	flag.Parse()
	files := own(p)
	dir := *out
	if dir == "" {
		dir = "deploy"
		files = shipped()
	}
	if err := write(dir, files); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// own returns the files for one installation.
func own(p parameters) map[string][]byte {
	return map[string][]byte{
		"events.json":          encode(events(p)),
		"hindsight.json":       encode(hindsight()),
		"hindsight.rules.yaml": prometheusRules(p),
		"events.rules.yaml":    lokiRules(p),
		"events.recorded.yaml": recordedRules(p),
	}
}

// shipped returns the generated files of the repository, by their paths in deploy. Helm and
// kustomize load no files from outside their folders, so each has copies.
func shipped() map[string][]byte {
	files := map[string][]byte{}
	for name, data := range own(defaults()) {
		dir, component := "grafana", "dashboards"
		if strings.HasSuffix(name, ".yaml") {
			dir, component = "alerts", "lokirules"
		}
		files[dir+"/"+name] = data
		if name == "hindsight.rules.yaml" {
			files["kustomize/components/prometheusrule/prometheusrule.yaml"] = prometheusRuleObject(data)
			continue
		}
		files["kustomize/components/"+component+"/"+name] = data
	}
	for name, data := range own(placeholders()) {
		files["helm/hindsight/generated/"+name] = data
	}
	return files
}

func write(dir string, files map[string][]byte) error {
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// encode returns indented JSON in the order of the names, so that a change is a small diff.
func encode(dashboard object) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(dashboard); err != nil {
		panic(err) // strings, numbers, lists and maps only
	}
	return b.Bytes()
}
