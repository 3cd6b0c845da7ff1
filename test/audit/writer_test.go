//go:build e2e

package audit

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// writer writes Events and keeps their latest states.
type writer struct {
	t       *testing.T
	cluster *cluster.Cluster
	client  kubernetes.Interface

	latest map[types.UID]*corev1.Event
	order  []types.UID // of creation
}

func newWriter(t *testing.T, c *cluster.Cluster) *writer {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"team-a", "team-b", "monitoring"} {
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return &writer{t: t, cluster: c, client: client, latest: map[types.UID]*corev1.Event{}}
}

// add keeps the latest state of an Event.
func (w *writer) add(e *corev1.Event, err error) *corev1.Event {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.latest[e.UID] == nil {
		w.order = append(w.order, e.UID)
	}
	w.latest[e.UID] = e
	return e
}

func (w *writer) create(e *corev1.Event) *corev1.Event {
	w.t.Helper()
	return w.add(w.client.CoreV1().Events(e.Namespace).Create(w.t.Context(), e, metav1.CreateOptions{}))
}

func (w *writer) update(e *corev1.Event) *corev1.Event {
	w.t.Helper()
	return w.add(w.client.CoreV1().Events(e.Namespace).Update(w.t.Context(), e, metav1.UpdateOptions{}))
}

func (w *writer) events() int { return len(w.latest) }

// all reports whether a condition holds for the latest state of each Event.
func (w *writer) all(holds func(*corev1.Event) bool) bool {
	for _, e := range w.latest {
		if !holds(e) {
			return false
		}
	}
	return true
}

// count returns the number of Events with a reason.
func (w *writer) count(reason string) (n int) {
	for _, e := range w.latest {
		if e.Reason == reason {
			n++
		}
	}
	return n
}

// backOffs returns the latest states of Events with the reason BackOff, in order of creation.
func (w *writer) backOffs() (events []*corev1.Event) {
	for _, uid := range w.order {
		if e := w.latest[uid]; e.Reason == "BackOff" {
			events = append(events, e)
		}
	}
	return events
}

func newEvent(namespace, reason, kind string, n int) *corev1.Event {
	now := metav1.Now()
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, GenerateName: fmt.Sprintf("web-%d.", n)},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("web-%d", n), UID: "4711"},
		Reason:         reason,
		Message:        fmt.Sprintf(`Back-off restarting failed container "web" of number %d`, n),
		Type:           kind,
		Source:         corev1.EventSource{Component: "kubelet", Host: "node-1"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}

// history writes some hundred states of typical Events.
func (w *writer) history() {
	w.t.Helper()
	for i := range 60 {
		w.create(newEvent("team-b", "Scheduled", "Normal", i))
		e := w.create(newEvent("team-a", "BackOff", "Warning", i))
		if i%6 == 0 {
			w.create(newEvent("team-b", "Pulled", "Normal", i))
		}
		for range i % 3 {
			e = e.DeepCopy()
			e.Count++
			e.LastTimestamp = metav1.Now()
			e = w.update(e)
		}
	}
}

// series writes Events of events.k8s.io.
func (w *writer) series() {
	w.t.Helper()
	for i := range 20 {
		e := newEvent("team-a", "Rescheduled", "Normal", i)
		e.FirstTimestamp, e.LastTimestamp, e.Count, e.Source = metav1.Time{}, metav1.Time{}, 0, corev1.EventSource{}
		e.EventTime, e.ReportingController, e.ReportingInstance, e.Action = metav1.NowMicro(), "example.com/scheduler", "scheduler-1", "Binding"
		e = w.create(e).DeepCopy()
		e.Series = &corev1.EventSeries{Count: 2, LastObservedTime: metav1.NowMicro()}
		w.update(e)
	}
}

// unusual writes Events with unusual times, fields and messages.
func (w *writer) unusual() {
	w.t.Helper()
	write := func(reason string, change func(*corev1.Event)) {
		w.t.Helper()
		e := newEvent("team-a", reason, "Warning", 1000+len(w.order))
		change(e)
		w.create(e)
	}
	write("Ahead", func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(time.Now().Add(time.Hour)) })
	write("Behind", func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(time.Now().Add(-5 * time.Hour)) })
	write("Timeless", func(e *corev1.Event) {
		e.FirstTimestamp, e.LastTimestamp, e.Count = metav1.Time{}, metav1.Time{}, 0
	})
	write("First", func(e *corev1.Event) { e.LastTimestamp, e.Count = metav1.Time{}, 0 })
	write("Hostile", func(e *corev1.Event) {
		e.Message = "a \"b\" c=d\n\x1b[31m{\"e\":1}\t\\ \u202e \u00e4\u00f6\u00fc \x00\x7f … \u2028 <&>"
	})
	write("not a CamelCase reason, but a sentence", func(*corev1.Event) {})
	write("Long", func(e *corev1.Event) { e.Message = strings.Repeat("long message ", 30_000) })
	write("Secret", func(e *corev1.Event) { e.Message = "cannot log in with token=abc123 at all" })
	write("Untyped", func(e *corev1.Event) { e.Type = "" })
	write("", func(*corev1.Event) {})
	write("Empty", func(e *corev1.Event) { e.Message, e.Source = "", corev1.EventSource{} })
	write("OnNode", func(e *corev1.Event) {
		e.Namespace = "default"
		e.InvolvedObject = corev1.ObjectReference{Kind: "Node", Name: "node-7"}
	})
}

// addServerEvents adds the Events that the API server wrote itself: they are exported and audited
// as well.
func (w *writer) addServerEvents() {
	w.t.Helper()
	all, err := w.client.CoreV1().Events("").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range all.Items {
		if cluster.EventByAPIServer(&all.Items[i]) {
			w.add(&all.Items[i], nil)
		}
	}
}

// inBackground creates and updates Events until stop is called.
func (w *writer) inBackground() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			e, err := w.client.CoreV1().Events("team-b").Create(ctx, newEvent("team-b", "Unhealthy", "Warning", i), metav1.CreateOptions{})
			for range 3 {
				if err == nil {
					e.Count++
					e.LastTimestamp = metav1.Now()
					e, err = w.client.CoreV1().Events("team-b").Update(ctx, e, metav1.UpdateOptions{})
				}
			}
			if err != nil && ctx.Err() == nil {
				w.t.Error(err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return func() { cancel(); writing.Wait() }
}

// auditor returns the kubeconfig of a service account that may only list Events.
func (w *writer) auditor() string {
	w.t.Helper()
	ctx, t := w.t.Context(), w.t
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "auditor"}}
	if _, err := w.client.CoreV1().ServiceAccounts("monitoring").Create(ctx, account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "auditor"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"list"}}},
	}
	if _, err := w.client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "auditor"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "monitoring", Name: "auditor"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "auditor"},
	}
	if _, err := w.client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := w.cluster.ServiceAccountToken(ctx, "monitoring", "auditor")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "auditor")
	if err := w.cluster.WriteKubeconfig(path, token); err != nil {
		t.Fatal(err)
	}
	return path
}

func version(t *testing.T, e *corev1.Event) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(e.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
