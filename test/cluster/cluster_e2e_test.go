//go:build e2e

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/hindsight-events/hindsight/test/wait"
)

// One cluster serves all of these: a start takes seconds. They run in order, the
// ones that change the past last.
func TestCluster(t *testing.T) {
	start := time.Now()
	c := ForTest(t, Options{APIServerFlags: []string{"--shutdown-watch-termination-grace-period=5s"}})
	t.Logf("ready after %v", time.Since(start).Round(time.Millisecond))
	client := clientFor(t, c, AdminToken)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *Cluster, kubernetes.Interface)
	}{
		{"events are listed and watched", listAndWatch},
		{"a user without rights and a service account have different rights", rights},
		{"a killed API server ends the watch, and a new one resumes from the version", killAPIServer},
		{"an API server that is stopped answers its watches with an end", stopAPIServer},
		{"a paused API server answers nothing until it is resumed", pauseAPIServer},
		{"etcd comes back under a running API server", killEtcd},
		{"a watch from a compacted version is refused with 410", compacted},
		{"a watch that needs the state before a compaction is refused with 500", boundary},
		{"a version from the future is refused with 504", future},
		{"a restored etcd loses and reuses versions", restore},
		{"a reset cluster is another one at the same address", reset},
		{"the scheduler and the controller manager start, and start again", controllers},
		{"all processes end", stop},
	} {
		ok := t.Run(step.name, func(t *testing.T) { step.run(t, c, client) })
		if !ok {
			return // the next step expects another state
		}
	}
}

func TestStartThatFailsSaysWhy(t *testing.T) {
	_, err := Start(t.Context(), Options{Dir: t.TempDir(), APIServerFlags: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("error is %v, want the message of the API server", err)
	}
}

func listAndWatch(t *testing.T, c *Cluster, client kubernetes.Interface) {
	w := watchEvents(t, client, "")
	createEvent(t, client, "first")
	if e := next(t, w); e.Type != watch.Added {
		t.Errorf("watch delivered %s, want ADDED", e.Type)
	}
	list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 {
		t.Errorf("list: %d events, %v", len(list.Items), err)
	}
}

func rights(t *testing.T, c *Cluster, client kubernetes.Interface) {
	_, err := clientFor(t, c, NobodyToken).CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights lists Events: %v, want forbidden", err)
	}
	for _, args := range [][]string{
		{"create", "serviceaccount", "reader"},
		{"create", "clusterrole", "reader", "--verb=list", "--resource=events"},
		{"create", "clusterrolebinding", "reader", "--clusterrole=reader", "--serviceaccount=default:reader"},
	} {
		if _, err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	token, err := c.ServiceAccountToken(t.Context(), "default", "reader")
	if err != nil {
		t.Fatal(err)
	}
	reader := clientFor(t, c, token)
	// RBAC reads the new objects from a cache.
	wait.Success(t, "the ServiceAccount may list Events", func() error {
		_, err := reader.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		return err
	})
}

func killAPIServer(t *testing.T, c *Cluster, client kubernetes.Interface) {
	w := watchEvents(t, client, "")
	created := createEvent(t, client, "before-restart")
	next(t, w)
	c.KillAPIServer()
	if _, open := <-w.ResultChan(); open {
		t.Error("the watch of a killed API server delivered something")
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w = watchEvents(t, client, created.ResourceVersion)
	createEvent(t, client, "after-restart")
	if e := next(t, w); e.Object.(*corev1.Event).Reason != "after-restart" {
		t.Errorf("watch delivered %v, want the change after its version", e)
	}
}

func stopAPIServer(t *testing.T, c *Cluster, client kubernetes.Interface) {
	w := watchEvents(t, client, "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	start := time.Now()
	if err := c.StopAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("SIGTERM took %v", time.Since(start).Round(time.Millisecond))
	for range w.ResultChan() {
		t.Error("the watch of a stopped API server delivered something")
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func pauseAPIServer(t *testing.T, c *Cluster, client kubernetes.Interface) {
	if err := c.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("a paused API server answered")
	}
	if err := c.ResumeAPIServer(); err != nil {
		t.Fatal(err)
	}
	wait.Success(t, "the API server lists Events again", func() error {
		_, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		return err
	})
}

func killEtcd(t *testing.T, c *Cluster, client kubernetes.Interface) {
	c.KillEtcd()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("events were listed without etcd")
	}
	if err := c.StartEtcd(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Success(t, "the API server lists Events again", func() error {
		_, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		return err
	})
}

func compacted(t *testing.T, c *Cluster, client kubernetes.Interface) {
	old := createEvent(t, client, "compacted")
	createEvent(t, client, "compacted too")
	createEvent(t, client, "kept")
	revision, err := c.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	e := next(t, watchEvents(t, client, old.ResourceVersion))
	if status, ok := e.Object.(*metav1.Status); e.Type != watch.Error || !ok || status.Code != http.StatusGone {
		t.Errorf("watch delivered %v, want an ERROR with code 410", e)
	}
}

func boundary(t *testing.T, c *Cluster, client kubernetes.Interface) {
	e := createEvent(t, client, "created")
	e.Count = 2
	if _, err := client.CoreV1().Events(e.Namespace).Update(t.Context(), e, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	revision, err := c.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	// From revision-1: the first thing to be delivered is the update.
	got := next(t, watchEvents(t, client, strconv.FormatInt(revision-1, 10)))
	if status, ok := got.Object.(*metav1.Status); got.Type != watch.Error || !ok || status.Code != http.StatusInternalServerError {
		t.Errorf("watch delivered %v, want an ERROR with code 500", got)
	}
}

func future(t *testing.T, c *Cluster, client kubernetes.Interface) {
	revision, err := c.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := listNotOlderThan(t.Context(), client, revision+1000); !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		t.Errorf("list: %v, want cause ResourceVersionTooLarge", err)
	}
}

func restore(t *testing.T, c *Cluster, client kubernetes.Interface) {
	uid := kubeSystemUID(t, client)
	snapshot, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var lost *corev1.Event
	for i := range 100 { // the start of an API server writes dozens of objects itself
		lost = createEvent(t, client, fmt.Sprintf("lost-%d", i))
	}
	if err := c.Restore(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Events("default").Get(t.Context(), lost.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get an event written after the snapshot: %v, want not found", err)
	}
	version, err := strconv.ParseInt(lost.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := listNotOlderThan(t.Context(), client, version); !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		t.Errorf("list of a version that was lost: %v, want cause ResourceVersionTooLarge", err)
	}
	if kubeSystemUID(t, client) != uid {
		t.Error("the restored cluster has another uid")
	}
}

func reset(t *testing.T, c *Cluster, client kubernetes.Interface) {
	uid := kubeSystemUID(t, client)
	if err := c.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kubeSystemUID(t, client) == uid {
		t.Error("the uid is the same")
	}
}

func controllers(t *testing.T, c *Cluster, _ kubernetes.Interface) {
	if err := c.StartScheduler(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.StartControllerManager(t.Context(), "replicaset-controller", "deployment-controller"); err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "create", "deployment", "web", "--image=registry.example.com/web:1"); err != nil {
		t.Fatal(err)
	}
	wait.Success(t, "kubectl lists the Event of the scheduler", func() error {
		out, err := c.Kubectl(t.Context(), "get", "events", "--all-namespaces")
		if err == nil && !strings.Contains(string(out), "FailedScheduling") {
			err = fmt.Errorf("no FailedScheduling among\n%s", out)
		}
		return err
	})
}

func stop(t *testing.T, c *Cluster, _ kubernetes.Interface) {
	processes := []*component{c.etcd, c.apiServer, c.scheduler, c.controllerManager}
	var pids []string
	for _, p := range processes {
		pids = append(pids, strconv.Itoa(p.process.PID()))
	}
	c.Stop()
	if out, err := exec.Command("ps", "-o", "pid,args", "-p", strings.Join(pids, ",")).CombinedOutput(); err == nil {
		t.Errorf("still running:\n%s", out)
	}
}

func clientFor(t *testing.T, c *Cluster, token string) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.ConfigFor(token))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func createEvent(t *testing.T, client kubernetes.Interface, reason string) *corev1.Event {
	t.Helper()
	e, err := client.CoreV1().Events("default").Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "test."},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "test"},
		Reason:         reason,
		Type:           corev1.EventTypeNormal,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// watchEvents watches all namespaces from now on if no version is given.
func watchEvents(t *testing.T, client kubernetes.Interface, version string) watch.Interface {
	t.Helper()
	if version == "" {
		list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		version = list.ResourceVersion
	}
	w, err := client.CoreV1().Events("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatal("the watch ended")
			}
			if written, ok := e.Object.(*corev1.Event); ok && EventByAPIServer(written) {
				continue
			}
			return e
		case <-timeout:
			t.Fatal("the watch delivered nothing for 10 s")
		}
	}
}

func listNotOlderThan(ctx context.Context, client kubernetes.Interface, version int64) error {
	_, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{
		Limit:                1,
		ResourceVersion:      strconv.FormatInt(version, 10),
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	return err
}

func kubeSystemUID(t *testing.T, client kubernetes.Interface) types.UID {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.UID
}
