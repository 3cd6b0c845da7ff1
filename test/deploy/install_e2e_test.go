//go:build e2e

package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/test/cluster"
)

const serviceAccount = "hindsight"

// Each way to install Hindsight, on an API server that checks rights, in a
// namespace for restricted pods: the objects are accepted, and so is the pod; the
// program may do all that it does with the rights of its ServiceAccount; and that
// may do nothing else.
func TestInstalled(t *testing.T) {
	t.Parallel()
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			i := install(t, w)
			t.Run("the chart's objects are accepted as well", func(t *testing.T) {
				i.apply(t, rendered(t, w), "--server-side", "--dry-run=server")
			})
			t.Run("the pod is restricted", i.podIsRestricted)
			t.Run("the ServiceAccount has the rights it needs and no more", i.rights)
			t.Run("the program is refused nothing", i.runProgram)
		})
	}
}

// installed is a way to install Hindsight and its cluster.
type installed struct {
	way
	cluster *cluster.Cluster
	client  *kubernetes.Clientset // the admin's
	objects map[string]*unstructured.Unstructured
	audit   string // the audit log with the requests of ServiceAccounts
}

// auditPolicy records the requests of ServiceAccounts.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts"]
  - level: None
`

// install carries out a way on a cluster of its own.
func install(t *testing.T, w way) *installed {
	t.Helper()
	i := prepare(t, w)
	i.apply(t, kustomized(t, w), "--server-side")
	return i
}

// prepare makes a cluster with all that has to be there before.
func prepare(t *testing.T, w way) *installed {
	t.Helper()
	dir := t.TempDir()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	write(t, policy, []byte(auditPolicy))
	c := cluster.ForTest(t, cluster.Options{APIServerFlags: []string{
		"--audit-policy-file=" + policy, "--audit-log-path=" + audit,
	}})
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	stream := kustomized(t, w)
	i := &installed{way: w, cluster: c, client: client, objects: objects(t, stream), audit: audit}
	for _, namespace := range []string{w.namespace, "team-a", "team-b", "team-c"} {
		i.createNamespace(t, namespace)
	}
	if strings.Contains(string(stream), "monitoring.coreos.com") {
		i.installPrometheusOperator(t)
	}
	return i
}

// An overlay can replace another: immutable fields do not differ, and no contradicting field of the
// previous overlay remains.
func TestOverlaysCanBeExchanged(t *testing.T) {
	t.Parallel()
	for _, serverSide := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied server-side %t", serverSide), func(t *testing.T) {
			t.Parallel()
			all := ways(t)[1:] // those in one namespace
			i := prepare(t, all[0])
			for _, w := range append(all, all[0]) {
				stream := kustomized(t, w)
				i.way, i.objects = w, objects(t, stream)
				i.apply(t, stream, fmt.Sprintf("--server-side=%t", serverSide))

				var want appsv1.Deployment
				i.object(t, "Deployment", &want)
				got, err := i.client.AppsV1().Deployments(w.namespace).Get(t.Context(), want.Name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if got.Spec.Strategy.Type != want.Spec.Strategy.Type || *got.Spec.Replicas != *want.Spec.Replicas {
					t.Errorf("after overlay %s: %s with %d replicas, want %s with %d", w.name,
						got.Spec.Strategy.Type, *got.Spec.Replicas, want.Spec.Strategy.Type, *want.Spec.Replicas)
				}
				if a, b := spread(got), spread(&want); a != b {
					t.Errorf("after overlay %s: %d topology spread constraints, want %d", w.name, a, b)
				}
			}
		})
	}
}

func spread(d *appsv1.Deployment) int { return len(d.Spec.Template.Spec.TopologySpreadConstraints) }

// createNamespace creates a namespace that accepts restricted pods only.
func (i *installed) createNamespace(t *testing.T, name string) {
	t.Helper()
	labels := map[string]string{}
	for _, mode := range []string{"enforce", "warn"} {
		labels["pod-security.kubernetes.io/"+mode] = "restricted"
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := i.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// prometheusOperator is where the definitions of PodMonitor and PrometheusRule
// are taken from.
const prometheusOperator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// installPrometheusOperator installs its definitions, for the API server to
// check objects against.
func (i *installed) installPrometheusOperator(t *testing.T) {
	t.Helper()
	out, err := run(exec.CommandContext(t.Context(), "go", "mod", "download", "-json", prometheusOperator))
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"podmonitors", "prometheusrules"} {
		definition := filepath.Join(module.Dir, "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml")
		if _, err := i.cluster.Kubectl(t.Context(), "apply", "--server-side", "-f", definition); err != nil {
			t.Fatal(err)
		}
		crd := "crd/" + kind + ".monitoring.coreos.com"
		if _, err := i.cluster.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=90s", crd); err != nil {
			t.Fatal(err)
		}
	}
}

// apply has the API server check objects strictly, and keep them. Warnings are
// failures.
func (i *installed) apply(t *testing.T, stream []byte, flags ...string) {
	t.Helper()
	args := append([]string{"apply", "--validate=strict", "-f", "-"}, flags...)
	cmd := i.cluster.KubectlCommand(t.Context(), args...)
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stream), &output, &output
	if err := cmd.Run(); err != nil || strings.Contains(output.String(), "Warning") {
		t.Fatalf("kubectl %q: %v\n%s", args, err, output.String())
	}
}

// The Deployment's pod is accepted where only restricted ones are, and would not
// be with less.
func (i *installed) podIsRestricted(t *testing.T) {
	var deployment appsv1.Deployment
	i.object(t, "Deployment", &deployment)
	pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: deployment.Spec.Template.Spec}
	pod.GenerateName = "hindsight-"
	create := func() error {
		_, err := i.client.CoreV1().Pods(i.namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := create(); err != nil {
		t.Error(err)
	}
	pod.Spec.SecurityContext.RunAsNonRoot = nil
	if err := create(); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("without runAsNonRoot: got %v, want that Pod Security forbids it", err)
	}
}

func (i *installed) token(t *testing.T, account string) string {
	t.Helper()
	token, err := i.cluster.ServiceAccountToken(t.Context(), i.namespace, account)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (i *installed) configuration(t *testing.T) *config.Config {
	t.Helper()
	return configuration(t, i.objects[fmt.Sprintf("ConfigMap %s/hindsight", i.namespace)])
}

// object decodes the object of a kind.
func (i *installed) object(t *testing.T, kind string, into any) {
	t.Helper()
	object := i.objects[fmt.Sprintf("%s %s/hindsight", kind, i.namespace)]
	if object == nil {
		t.Fatalf("there is no %s", kind)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
