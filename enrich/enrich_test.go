package enrich

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata/fake"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/quantity"
)

// metadataOf returns the metadata of an object with a controller, of which uid is kind and name.
func metadataOf(apiVersion, kind, namespace, name string, labels map[string]string, controller ...string) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(kind + "-" + name), Labels: labels},
	}
	if len(controller) == 2 {
		yes := true
		o.OwnerReferences = []metav1.OwnerReference{{Kind: controller[0], Name: controller[1], UID: types.UID(controller[0] + "-" + controller[1]), Controller: &yes}}
	}
	return o
}

func about(kind, namespace, name string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: "e", UID: "e"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "apps/v1", Kind: kind, Namespace: namespace, Name: name, UID: types.UID(kind + "-" + name)},
	}
}

// started returns an Enricher that has read the objects.
func started(t *testing.T, c Config, objects ...runtime.Object) (*Enricher, *fake.FakeMetadataClient) {
	t.Helper()
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleMetadataClient(scheme, objects...)
	e := New(Options{Config: c, Client: client})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	if err := e.WaitFilled(ctx); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return e, client
}

// attributes applies e to the record of an Event.
func attributes(t *testing.T, e *Enricher, ev *corev1.Event) map[string]string {
	t.Helper()
	records := []event.Record{{Event: ev}}
	e.Apply(t.Context(), records)
	got := map[string]string{}
	for i, p := range records[0].Attributes {
		got[p.Name] = p.Value
		if i > 0 && records[0].Attributes[i-1].Name >= p.Name {
			t.Errorf("attributes are not sorted: %v", records[0].Attributes)
		}
	}
	return got
}

func TestAttributes(t *testing.T) {
	config := DefaultConfig()
	config.Workload = true
	config.Labels = map[string]string{"app": "app.kubernetes.io/name"}
	config.Annotations = map[string]string{"runbook": "example.com/runbook"}
	config.NamespaceLabels = map[string]string{"tenant": "example.com/tenant"}
	app := func(name string) map[string]string { return map[string]string{"app.kubernetes.io/name": name} }

	static := metadataOf("v1", "Pod", "kube-system", "etcd-node-1", nil, "Node", "node-1")
	static.Annotations = map[string]string{staticPodHash: "5f2c0e3e7b1d4f2a9c8b7a6d5e4f3c2b"}
	annotated := metadataOf("v1", "Pod", "prod", "noted", app("n"))
	annotated.Annotations = map[string]string{"example.com/runbook": strings.Repeat("é", 200)}
	objects := []runtime.Object{
		metadataOf("v1", "Namespace", "", "prod", map[string]string{"example.com/tenant": "red"}),
		metadataOf("v1", "Node", "", "node-1", app("worker")),
		metadataOf("v1", "Pod", "prod", "web-1-a", app("web"), "ReplicaSet", "web-1"),
		metadataOf("apps/v1", "ReplicaSet", "prod", "web-1", app("web"), "Deployment", "web"),
		metadataOf("v1", "Pod", "prod", "roll-1-a", nil, "ReplicaSet", "roll-1"),
		metadataOf("apps/v1", "ReplicaSet", "prod", "roll-1", nil, "Rollout", "roll"),
		metadataOf("v1", "Pod", "prod", "db-0", nil, "StatefulSet", "db"),
		metadataOf("v1", "Pod", "prod", "report-1-a", nil, "Job", "report-1"),
		metadataOf("batch/v1", "Job", "prod", "report-1", nil, "CronJob", "report"),
		metadataOf("v1", "Pod", "prod", "bare", nil),
		metadataOf("v1", "Pod", "prod", "orphan", nil, "ReplicaSet", "gone"),
		static, annotated,
	}
	node := about("Node", "", "node-1")
	node.InvolvedObject.UID = "node-1" // as kubelets write it
	mirror := about("Pod", "kube-system", "etcd-node-1")
	mirror.InvolvedObject.UID = "5f2c0e3e7b1d4f2a9c8b7a6d5e4f3c2b"
	successor := about("Pod", "prod", "db-0")
	successor.InvolvedObject.UID = "another"
	nameless := about("Pod", "prod", "db-0")
	nameless.InvolvedObject.UID = ""

	for name, test := range map[string]struct {
		event *corev1.Event
		want  map[string]string
	}{
		"a pod of a Deployment":        {about("Pod", "prod", "web-1-a"), map[string]string{"app": "web", "tenant": "red", "workload_kind": "Deployment", "workload_name": "web"}},
		"its ReplicaSet":               {about("ReplicaSet", "prod", "web-1"), map[string]string{"app": "web", "tenant": "red", "workload_kind": "Deployment", "workload_name": "web"}},
		"the Deployment":               {about("Deployment", "prod", "web"), map[string]string{"tenant": "red", "workload_kind": "Deployment", "workload_name": "web"}},
		"a pod of a custom controller": {about("Pod", "prod", "roll-1-a"), map[string]string{"tenant": "red", "workload_kind": "Rollout", "workload_name": "roll"}},
		"the custom controller":        {about("Rollout", "prod", "roll"), map[string]string{"tenant": "red", "workload_kind": "Rollout", "workload_name": "roll"}},
		"a pod of a StatefulSet":       {about("Pod", "prod", "db-0"), map[string]string{"tenant": "red", "workload_kind": "StatefulSet", "workload_name": "db"}},
		"a pod of a CronJob":           {about("Pod", "prod", "report-1-a"), map[string]string{"tenant": "red", "workload_kind": "CronJob", "workload_name": "report"}},
		"a pod without a controller":   {about("Pod", "prod", "bare"), map[string]string{"tenant": "red", "workload_kind": "Pod", "workload_name": "bare"}},
		"a pod whose owner is unknown": {about("Pod", "prod", "orphan"), map[string]string{"tenant": "red"}},
		"a static pod":                 {mirror, map[string]string{"workload_kind": "Pod", "workload_name": "etcd-node-1"}},
		"a Node by its name":           {node, map[string]string{"app": "worker"}},
		"a pod's successor":            {successor, map[string]string{"tenant": "red"}},
		"a pod without a uid":          {nameless, map[string]string{"tenant": "red"}},
		"a Service":                    {about("Service", "prod", "web"), map[string]string{"tenant": "red"}},
		"a long annotation":            {about("Pod", "prod", "noted"), map[string]string{"app": "n", "tenant": "red", "workload_kind": "Pod", "workload_name": "noted", "runbook": strings.Repeat("é", 126) + "…"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := started(t, config, objects...)
				if got := attributes(t, e, test.event); !maps.Equal(got, test.want) {
					t.Errorf("got %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestAnEventBeforeItsObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := DefaultConfig()
		c.Workload = true
		e, client := started(t, c)
		create := func(o *metav1.PartialObjectMetadata) {
			gvr := resources[0].GroupVersionResource
			if _, err := client.Resource(gvr).Namespace(o.Namespace).(fake.MetadataClient).CreateFake(o, metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
		}
		time.AfterFunc(200*time.Millisecond, func() { create(metadataOf("v1", "Pod", "prod", "late", nil, "StatefulSet", "db")) })
		begin := time.Now()
		if got := attributes(t, e, about("Pod", "prod", "late")); got[WorkloadName] != "db" {
			t.Errorf("got %v, want the workload of the pod that came 200ms later", got)
		}
		if waited := time.Since(begin); waited != 200*time.Millisecond {
			t.Errorf("waited %v, want no longer than for the pod", waited)
		}

		begin = time.Now()
		for range 3 {
			if got := attributes(t, e, about("Pod", "prod", "never")); len(got) > 0 {
				t.Errorf("got %v for a pod that does not exist", got)
			}
		}
		if waited := time.Since(begin); waited != time.Duration(c.Wait) {
			t.Errorf("waited %v for a pod that does not exist, want once %v", waited, c.Wait)
		}

		begin = time.Now()
		listed := []event.Record{{Event: about("Pod", "prod", "deleted long ago")}}
		listed[0].Position.ListVersion = 5
		e.Apply(t.Context(), listed)
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("a record of a list waited %v", waited)
		}
	})
}

// Events about ever new objects that do not exist wait for a tenth of the time at most, and one about
// an object that comes is complete again after a while.
func TestWaitsInVainAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := DefaultConfig()
		c.Workload = true
		e, client := started(t, c)
		begin, waited := time.Now(), time.Duration(0)
		for i := 0; time.Since(begin) < 10*time.Minute; i++ {
			before := time.Now()
			attributes(t, e, about("Pod", "prod", fmt.Sprint("gone-", i)))
			waited += time.Since(before)
			time.Sleep(100 * time.Millisecond)
		}
		if waited > time.Minute {
			t.Errorf("Events waited %v in ten minutes", waited)
		}
		time.Sleep(pauseFactor * time.Duration(c.Wait))
		time.AfterFunc(100*time.Millisecond, func() {
			o := metadataOf("v1", "Pod", "prod", "late", nil, "StatefulSet", "db")
			if _, err := client.Resource(resources[0].GroupVersionResource).Namespace("prod").(fake.MetadataClient).CreateFake(o, metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
		})
		if got := attributes(t, e, about("Pod", "prod", "late")); got[WorkloadName] != "db" {
			t.Errorf("got %v, want the workload of a pod that came later", got)
		}
	})
}

// podsOf returns the number of pods in the store, which the first watch has.
func podsOf(e *Enricher) (n int) {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	for _, o := range e.store.objects {
		if o.watch == e.watches[0].number {
			n++
		}
	}
	return n
}

// With a watch for each of many namespaces, the end of one's list leaves the objects of all others.
func TestManyNamespaces(t *testing.T) {
	c := DefaultConfig()
	c.Workload = true
	var namespaces []string
	for i := range 400 {
		namespaces = append(namespaces, fmt.Sprint("team-", i))
	}
	e := New(Options{Config: c, Client: nilClient{}, Namespaces: namespaces})
	for i, w := range e.watches {
		w.set(metadataOf("v1", w.kind, "", fmt.Sprint("o-", i), nil), 1)
	}
	e.store.set(uidKey("read"), readWatch, 0, properties{})
	for _, w := range e.watches[1:] {
		w.list = 2
		if err := w.Replace(nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	left := 0
	for _, o := range e.store.objects {
		if o.deletedAt == 0 {
			left++
		}
	}
	if left != 2 {
		t.Errorf("%d objects are left, want that of the first watch and the one that was read singly", left)
	}
}

func TestADeletedPodIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := DefaultConfig()
		c.Workload, c.KeepDeleted, c.Wait = true, quantity.Duration(10*time.Minute), 0
		e, client := started(t, c, metadataOf("v1", "Pod", "prod", "db-0", nil, "StatefulSet", "db"))
		if err := client.Resource(resources[0].GroupVersionResource).Namespace("prod").Delete(t.Context(), "db-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := attributes(t, e, about("Pod", "prod", "db-0")); got[WorkloadName] != "db" {
			t.Errorf("got %v after the deletion, want workload_name db", got)
		}
		time.Sleep(12 * time.Minute)
		if got := attributes(t, e, about("Pod", "prod", "db-0")); len(got) > 0 {
			t.Errorf("got %v 12m after the deletion, want nothing", got)
		}
		if n := podsOf(e); n != 0 {
			t.Errorf("%d pods are in the store, want 0", n)
		}
	})
}
