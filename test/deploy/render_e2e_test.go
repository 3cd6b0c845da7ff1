//go:build e2e

package deploy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	yamlv3 "gopkg.in/yaml.v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// way is one way to install Hindsight, with kustomize and with the chart.
type way struct {
	name      string
	namespace string
	kustomize string // folder
	values    string // file
}

func ways(t *testing.T) []way {
	t.Helper()
	overlays, err := filepath.Glob(filepath.Join(kustomizeDir, "overlays", "*"))
	if err != nil || len(overlays) < 6 {
		t.Fatalf("overlays: %q: %v", overlays, err)
	}
	all := []way{{"own", "monitoring", ownDir, filepath.Join(ownDir, "values.yaml")}}
	for _, dir := range overlays {
		name := filepath.Base(dir)
		all = append(all, way{name, "hindsight", dir, filepath.Join(chartDir, "ci", name+".yaml")})
	}
	return all
}

// The chart's ci folder has values for each overlay, and both give the same
// objects.
func TestChartRendersWhatKustomizeDoes(t *testing.T) {
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			want := objects(t, kustomized(t, w))
			got := objects(t, rendered(t, w))
			for key := range want {
				if got[key] == nil {
					t.Errorf("the chart has no %s", key)
				}
			}
			for key, object := range got {
				if want[key] == nil {
					t.Errorf("kustomize has no %s", key)
					continue
				}
				got, want := text(t, normalised(t, object)), text(t, normalised(t, want[key]))
				if got != want {
					t.Errorf("%s: the chart gives\n%s\nkustomize\n%s", key, got, want)
				}
			}
		})
	}
}

// A selector that holds anything that may change cannot be changed with it, or
// selects nothing for a while.
func TestSelectorsHoldNothingThatChanges(t *testing.T) {
	want := map[string]any{"app.kubernetes.io/name": "hindsight", "app.kubernetes.io/instance": "hindsight"}
	for _, w := range ways(t) {
		found := 0
		for key, object := range objects(t, kustomized(t, w)) {
			for _, field := range []string{"selector", "podSelector"} {
				selector, ok, err := unstructured.NestedMap(object.Object, "spec", field, "matchLabels")
				if err != nil {
					t.Fatal(err)
				}
				if ok && !reflect.DeepEqual(selector, want) {
					t.Errorf("%s: %s selects by %v", w.name, key, selector)
				}
				if ok {
					found++
				}
			}
		}
		if found < 2 {
			t.Errorf("%s: %d selectors were found, want the ones of Deployment and NetworkPolicy", w.name, found)
		}
	}
}

func TestLint(t *testing.T) {
	for _, values := range valuesFiles(t) {
		helm(t, "lint", "--strict", chartDir, "--values", values)
	}
}

// Invalid values are rejected with a message that names the fix.
func TestValuesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		set  []string
		want string
	}{
		"no cluster":                     {nil, "missing property 'cluster'"},
		"an empty cluster":               {[]string{"cluster="}, "'/cluster'"},
		"an unknown value":               {[]string{"cluster=a", "replica=2"}, "additional properties 'replica' not allowed"},
		"two replicas without a Lease":   {[]string{"cluster=a", "replicas=2", "config.leader_election.enabled=false"}, "replicas above 1 need config.leader_election.enabled"},
		"two replicas on one volume":     {[]string{"cluster=a", "replicas=2", "persistence.enabled=true"}, "replicas above 1 cannot share the volume"},
		"another address":                {[]string{"cluster=a", "config.listen=:9090"}, "config.listen is set by the chart"},
		"the cluster in the wrong place": {[]string{"cluster=a", "config.cluster=b"}, "config.cluster is set by the chart"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"template", "hindsight", chartDir}
			for _, set := range c.set {
				args = append(args, "--set", set)
			}
			_, err := runHelm(t, args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// The notes of an installation show the first query, for the sinks that it has.
func TestNotesShowTheFirstQuery(t *testing.T) {
	for values, want := range map[string]string{
		filepath.Join(chartDir, "ci", "loki.yaml"):   `{cluster="prod-eu-1", job="hindsight"}`,
		filepath.Join(chartDir, "ci", "stdout.yaml"): `{namespace="hindsight", container="hindsight"} | json`,
	} {
		notes := string(helm(t, "install", "hindsight", chartDir, "--namespace", "hindsight", "--dry-run=client", "--values", values))
		if !strings.Contains(notes, "\n  "+want+"\n") {
			t.Errorf("%s: want the query\n%s\nin\n%s", values, want, notes)
		}
	}
}

func kustomized(t *testing.T, w way) []byte {
	t.Helper()
	bin, err := cluster.Build(t.Context(), "kube")
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), "kustomize", w.kustomize))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func rendered(t *testing.T, w way) []byte {
	t.Helper()
	return helm(t, "template", "hindsight", chartDir, "--namespace", w.namespace, "--values", w.values)
}

func helm(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := runHelm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// runHelm runs the Helm that the nested module in tools names. The first run
// builds it, which takes a minute or two.
func runHelm(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	for i, arg := range args {
		if strings.Contains(arg, "/") { // helm runs in another folder
			path, err := filepath.Abs(arg)
			if err != nil {
				t.Fatal(err)
			}
			args[i] = path
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "helm"}, args...)...)
	cmd.Dir = "tools"
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return run(cmd)
}

// run returns the standard output. An error includes the standard error.
func run(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%q: %w: %s%s", cmd.Args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// objects returns the objects of a stream of YAML, by kind, namespace and name.
func objects(t *testing.T, stream []byte) map[string]*unstructured.Unstructured {
	t.Helper()
	all := map[string]*unstructured.Unstructured{}
	for decoder := k8syaml.NewYAMLOrJSONDecoder(bytes.NewReader(stream), 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, stream)
		}
		if len(object.Object) == 0 {
			continue
		}
		key := fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
		if all[key] != nil {
			t.Errorf("there are two %s", key)
		}
		all[key] = object
	}
}

// normalised returns an object without the labels that Helm's charts carry, and
// with its configuration filled in, and its volumes in the order of their names.
func normalised(t *testing.T, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	object = object.DeepCopy()
	labels := object.GetLabels()
	for _, label := range []string{"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
		delete(labels, label)
	}
	object.SetLabels(labels)
	switch object.GetKind() {
	case "ConfigMap":
		if _, ok, _ := unstructured.NestedString(object.Object, "data", "config.yaml"); !ok {
			break // dashboards or rules
		}
		filledIn, err := yamlv3.Marshal(configuration(t, object))
		if err != nil {
			t.Fatal(err)
		}
		if err := unstructured.SetNestedField(object.Object, string(filledIn), "data", "config.yaml"); err != nil {
			t.Fatal(err)
		}
	case "Deployment":
		path := []string{"spec", "template", "spec", "volumes"}
		volumes, _, err := unstructured.NestedSlice(object.Object, path...)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(volumes, func(a, b any) int {
			return cmp.Compare(a.(map[string]any)["name"].(string), b.(map[string]any)["name"].(string))
		})
		if err := unstructured.SetNestedSlice(object.Object, volumes, path...); err != nil {
			t.Fatal(err)
		}
	}
	return object
}

// configuration is that which a ConfigMap holds.
func configuration(t *testing.T, configMap *unstructured.Unstructured) *config.Config {
	t.Helper()
	data, _, err := unstructured.NestedString(configMap.Object, "data", "config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("config.yaml", []byte(data))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, data)
	}
	return c
}

func text(t *testing.T, v any) string {
	t.Helper()
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
