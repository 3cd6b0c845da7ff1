// Package deploy tests the folder deploy. This file needs no cluster.
package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/hindsight-events/hindsight/internal/config"
)

const (
	kustomizeDir = "../../deploy/kustomize"
	chartDir     = "../../deploy/helm/hindsight"
	ownDir       = "testdata/own"
)

// configurations returns the files that configure Hindsight itself.
func configurations(t *testing.T) []string {
	t.Helper()
	files := []string{filepath.Join(ownDir, "config.yaml")}
	err := filepath.WalkDir(kustomizeDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "config.yaml" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// valuesFiles returns the values files of the chart's tests.
func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no values in the chart's ci folder: %v", err)
	}
	return append(files, filepath.Join(ownDir, "values.yaml"))
}

func TestConfigurationsAreValid(t *testing.T) {
	files := configurations(t)
	if len(files) < 6 {
		t.Errorf("%d configurations were found, want one for each overlay at least: %q", len(files), files)
	}
	for _, path := range files {
		c, err := config.Load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		fitsThePod(t, path, c)
	}
}

// The default values of the chart, of its tests and of its README are valid configurations.
func TestValuesAreValidConfigurations(t *testing.T) {
	all := map[string]map[string]any{}
	for _, path := range valuesFiles(t) {
		all[path] = load(t, path)
	}
	readme := filepath.Join(chartDir, "README.md")
	var shown map[string]any
	if err := yaml.Unmarshal([]byte(shownYAML(t, readme)), &shown); err != nil {
		t.Fatal(err)
	}
	all[readme] = shown
	for path, values := range all {
		values = merge(load(t, filepath.Join(chartDir, "values.yaml")), values)
		configuration, _ := values["config"].(map[string]any)
		configuration["cluster"] = values["cluster"]
		text, err := yaml.Marshal(configuration)
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Parse(path, text)
		if err != nil {
			t.Errorf("%v\nin\n%s", err, text)
			continue
		}
		fitsThePod(t, path, c)
	}
}

// fitsThePod checks a configuration against the pod: writable directories, probes, and termination
// grace period.
func fitsThePod(t *testing.T, path string, c *config.Config) {
	t.Helper()
	const writable = "/var/lib/hindsight/"
	if !strings.HasPrefix(c.Journal.Dir, writable) {
		t.Errorf("%s: journal.dir is %q, want it below %s", path, c.Journal.Dir, writable)
	}
	for _, s := range c.Sinks {
		if s.File != nil && filepath.Dir(s.File.Path)+"/" != writable {
			t.Errorf("%s: sink %s writes to %s, want it in %s, the only directory that exists", path, s.Name, s.File.Path, writable)
		}
	}
	if c.Listen != ":8080" {
		t.Errorf("%s: listen is %q, want :8080, the port of the probes", path, c.Listen)
	}
	if c.Cluster == "" {
		t.Errorf("%s: cluster is missing", path)
	}
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct{ TerminationGracePeriodSeconds int }
			}
		}
	}
	decode(t, filepath.Join(kustomizeDir, "base", "deployment.yaml"), &deployment)
	grace := time.Duration(deployment.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	if drain := time.Duration(c.DrainTimeout); grace < drain+10*time.Second {
		t.Errorf("%s: drain_timeout is %v, and the pod is killed after %v", path, drain, grace)
	}
}

// The README shows the tested kustomization.
func TestReadmeShowsTheTestedKustomization(t *testing.T) {
	tested, err := os.ReadFile(filepath.Join(ownDir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	shown := shownYAML(t, filepath.Join(kustomizeDir, "README.md"))
	_, want, _ := strings.Cut(string(tested), "shows it.\n")
	if want = strings.ReplaceAll(want, "../../../../", "hindsight/"); shown != want {
		t.Errorf("got\n%s\nwant\n%s", shown, want)
	}
}

// shownYAML returns the block of YAML in a README.
func shownYAML(t *testing.T, path string) string {
	t.Helper()
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(readme), "```yaml\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("%s shows no YAML", path)
	}
	return block
}

func load(t *testing.T, path string) (values map[string]any) {
	t.Helper()
	decode(t, path, &values)
	return values
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// merge lays values over others as Helm does: maps are merged, all else is
// replaced.
func merge(under, over map[string]any) map[string]any {
	for key, value := range over {
		if a, ok := under[key].(map[string]any); ok {
			if b, ok := value.(map[string]any); ok {
				merge(a, b)
				continue
			}
		}
		under[key] = value
	}
	return under
}
