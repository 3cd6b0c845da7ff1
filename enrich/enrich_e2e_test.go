//go:build e2e

package enrich

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// TestAgainstAnAPIServer enriches the Events that real controllers write about a Deployment which is
// rolled and deleted.
func TestAgainstAnAPIServer(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := c.StartControllerManager(ctx, "deployment-controller", "replicaset-controller", "statefulset-controller", "garbage-collector-controller", "serviceaccount-controller"); err != nil {
		t.Fatal(err)
	}
	namespace := func(name string, labels map[string]string) {
		t.Helper()
		if _, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	namespace("prod", map[string]string{"example.com/tenant": "red"})
	bare := 2*pageSize + 7
	createPods(t, admin, bare)

	config := DefaultConfig()
	config.Workload = true
	config.Labels = map[string]string{"app": "app.kubernetes.io/name"}
	config.NamespaceLabels = map[string]string{"tenant": "example.com/tenant"}
	e := run(t, c, cluster.AdminToken, config)
	filling, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := e.WaitFilled(filling); err != nil {
		t.Fatal(err)
	}
	if n := podsOf(e); n != bare {
		t.Errorf("%d pods are in the store, want the %d of all pages", n, bare)
	}

	t.Run("a Deployment is rolled and deleted", func(t *testing.T) {
		events, err := admin.CoreV1().Events("prod").Watch(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer events.Stop()
		var mu sync.Mutex
		wrong, kinds := []string{}, map[string]int{}
		go func() {
			for ev := range events.ResultChan() {
				ev, ok := ev.Object.(*corev1.Event)
				if !ok {
					continue
				}
				records := []event.Record{{Event: ev}}
				e.Apply(ctx, records)
				mu.Lock()
				kinds[ev.InvolvedObject.Kind]++
				got := [3]string{records[0].Attribute(WorkloadKind), records[0].Attribute(WorkloadName), records[0].Attribute("tenant")}
				if got != [3]string{"Deployment", "web", "red"} {
					wrong = append(wrong, fmt.Sprintf("%s %s: %v", ev.Reason, ev.InvolvedObject.Name, got))
				}
				mu.Unlock()
			}
		}()
		deployments := admin.AppsV1().Deployments("prod")
		d, err := deployments.Create(ctx, deployment("web", 5), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the first pods exist", func() bool { return len(listPods(t, admin, "web")) == 5 })
		d.Spec.Template.Annotations = map[string]string{"roll": "1"}
		d.ResourceVersion = ""
		if _, err := deployments.Update(ctx, d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "a second ReplicaSet has pods", func() bool {
			owners := map[string]bool{}
			for _, p := range listPods(t, admin, "web") {
				owners[p.OwnerReferences[0].Name] = true
			}
			return len(owners) == 2
		})
		pods := listPods(t, admin, "web")
		// The pods are gone before kubelets' Events about them arrive.
		background := metav1.DeletePropagationBackground
		if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "all pods are gone", func() bool { return len(listPods(t, admin, "web")) == 0 })
		for _, p := range pods {
			got := attributesOf(ctx, e, "Pod", "prod", p.Name, p.UID)
			want := map[string]string{"app": "web", "tenant": "red", WorkloadKind: "Deployment", WorkloadName: "web"}
			if !maps.Equal(got, want) {
				t.Errorf("the deleted pod %s has %v, want %v", p.Name, got, want)
			}
		}
		wait.Until(t, "the controllers' Events are read", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return kinds["Deployment"] >= 2 && kinds["ReplicaSet"] >= 7
		})
		mu.Lock()
		defer mu.Unlock()
		if len(wrong) > 0 {
			t.Errorf("%d Events without their workload: %v", len(wrong), wrong)
		}
	})

	t.Run("labels change", func(t *testing.T) {
		if _, err := admin.CoreV1().Namespaces().Patch(ctx, "prod", types.MergePatchType, []byte(`{"metadata":{"labels":{"example.com/tenant":"blue"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the namespace has its new label", func() bool {
			return attributesOf(ctx, e, "Service", "prod", "x", "")["tenant"] == "blue"
		})
	})

	t.Run("a Deployment's own labels", func(t *testing.T) {
		d, err := admin.AppsV1().Deployments("prod").Create(ctx, deployment("api", 0), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := attributesOf(ctx, e, "Deployment", "prod", "api", d.UID); got["app"] != "api" {
				t.Errorf("got %v, want app api, read from the API server", got)
			}
		}
	})

	t.Run("without permission", func(t *testing.T) {
		if _, err := admin.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "enrich"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		token, err := c.ServiceAccountToken(ctx, "default", "enrich")
		if err != nil {
			t.Fatal(err)
		}
		e := run(t, c, token, config)
		wait.Until(t, "each missing right is reported", func() bool {
			err := e.Problem()
			return err != nil && !slices.ContainsFunc([]string{"pods", "replicasets.apps", "jobs.batch", "nodes", "namespaces"}, func(r string) bool {
				return !strings.Contains(err.Error(), "grant get, list and watch on "+r)
			})
		})
		rules := []rbacv1.PolicyRule{{APIGroups: []string{"", "apps", "batch"}, Resources: []string{"pods", "replicasets", "jobs", "nodes", "namespaces"}, Verbs: []string{"get", "list", "watch"}}}
		if _, err := admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "enrich"}, Rules: rules}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "enrich"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "enrich"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "enrich"}},
		}
		if _, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the store is filled after the rights were granted", func() bool { return e.Problem() == nil && podsOf(e) >= bare })
	})
}

// run runs an Enricher with a token until the end of the test.
func run(t *testing.T, c *cluster.Cluster, token string, config Config) *Enricher {
	t.Helper()
	client, err := metadata.NewForConfig(c.ConfigFor(token))
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{Config: config, Client: client})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return e
}

func attributesOf(ctx context.Context, e *Enricher, kind, namespace, name string, uid types.UID) map[string]string {
	ev := about(kind, namespace, name)
	ev.InvolvedObject.UID = uid
	records := []event.Record{{Event: ev}}
	e.Apply(ctx, records)
	got := map[string]string{}
	for _, p := range records[0].Attributes {
		got[p.Name] = p.Value
	}
	return got
}

func createPods(t *testing.T, admin kubernetes.Interface, n int) {
	t.Helper()
	if _, err := admin.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		wait.Success(t, "the default ServiceAccount exists", func() error {
			_, err := admin.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
			return err
		})
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < n; i += 8 {
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bare-%d", i)}, Spec: podSpec()}
				if _, err := admin.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func listPods(t *testing.T, admin kubernetes.Interface, app string) []corev1.Pod {
	t.Helper()
	list, err := admin.CoreV1().Pods("prod").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + app})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app.kubernetes.io/name": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec()},
		},
	}
}

func podSpec() corev1.PodSpec {
	no := false
	return corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "c", Image: "registry.example.com/c:1"}}}
}
