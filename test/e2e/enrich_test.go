//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// Events of real controllers are found in Loki by the workload and the labels of their objects,
// after a restart and after the objects are gone.
func TestWorkloadsInLoki(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	client, ctx := newClient(t, c), t.Context()
	if err := c.StartControllerManager(ctx, "deployment-controller", "replicaset-controller", "serviceaccount-controller", "garbage-collector-controller"); err != nil {
		t.Fatal(err)
	}
	for _, team := range []string{"red", "blue"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team-" + team, Labels: map[string]string{"example.com/team": team}}}
		if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	config := `cluster: ` + clusterName + `
enrich:
  workload: true
  labels: {app: app.kubernetes.io/name}
  namespace_labels: {team: example.com/team}
drop: '{team="blue"}'
sinks:
- name: loki
  match: '{team=~".+"}'
  loki: {url: ` + l.URL() + `, labels: {namespace: namespace, reason: reason, team: team}}
`
	p := start(t, c.Kubeconfig(), config)
	p.untilReady()
	count := func(query string) int { return value(t, l, "sum(count_over_time("+query+"[1h]))") }
	deploy := func(namespace, name string) {
		t.Helper()
		if _, err := client.AppsV1().Deployments(namespace).Create(ctx, deploymentOf(name, 3), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the pods exist", func() bool {
			pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
			return err == nil && len(pods.Items) == 3
		})
	}
	const ofWeb = `{team="red"} | workload_kind="Deployment" | workload_name="web" | app="web"`
	deploy("team-blue", "web")
	deploy("team-red", "web")
	// ScalingReplicaSet about the Deployment, SuccessfulCreate about its ReplicaSet.
	wait.Until(t, "the Events of the Deployment are found by its workload", func() bool { return count(ofWeb) >= 4 })
	pods, err := client.CoreV1().Pods("team-red").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if code := p.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	p = start(t, c.Kubeconfig(), config)
	p.untilReady()
	if err := client.AppsV1().Deployments("team-red").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the pods are gone", func() bool {
		left, err := client.CoreV1().Pods("team-red").List(ctx, metav1.ListOptions{})
		return err == nil && len(left.Items) == 0
	})
	for i, pod := range pods.Items {
		e := newEvent("team-red", fmt.Sprintf("late-%d.", i), "Stopping container c")
		e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
		if _, err := client.CoreV1().Events("team-red").Create(ctx, e, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "Events about pods that are gone are found by their workload", func() bool {
		return count(ofWeb+` | kind="Pod" |= "Stopping container c" `) == 3
	})
	// The pods' names follow from the Deployment's; one that does not is found by its workload.
	odd := newEvent("team-red", "odd.", "Stopping container c")
	odd.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: "team-red", Name: "renamed", UID: pods.Items[0].UID}
	if _, err := client.CoreV1().Events("team-red").Create(ctx, odd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "it is stored", func() bool { return count(`{team="red"} | name="renamed"`) == 1 })
	for args, want := range map[string]string{
		"timeline --for deployment/web -o json":         `"name":"renamed"`,
		"query -l {workload_name=\"web\",team=\"red\"}": "Pod/renamed",
	} {
		out, stderr, code := program.Run(t, program.Options{Args: append(strings.Fields(args), "-n", "team-red", "--config", p.ConfigPath)})
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, and no %s in\n%s%s", args, code, want, out, stderr)
		}
	}
	if n := count(`{team="blue"}`) + count(`{namespace="team-blue"}`); n != 0 {
		t.Errorf("%d Events of the namespace whose label is dropped", n)
	}
	if n := count(`{job=~".+"} | workload_name=""`); n != 0 {
		t.Errorf("%d Events without a workload", n)
	}
}

func deploymentOf(name string, replicas int32) *appsv1.Deployment {
	labels, no := map[string]string{"app.kubernetes.io/name": name}, false
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "c", Image: "registry.example.com/c:1"}}},
			},
		},
	}
}
