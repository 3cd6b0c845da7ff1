//go:build e2e

package canary_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/canary"
	reader "github.com/hindsight-events/hindsight/query/loki"
	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
	"github.com/hindsight-events/hindsight/watch"
)

// With only the permissions of the package's doc, the Event comes back through a real watch and is
// found in a real Loki, also after it was deleted.
func TestAgainstAnAPIServerAndALoki(t *testing.T) {
	const namespace = "kube-system" // not default, where an API server is less strict
	c := cluster.ForTest(t, cluster.Options{})
	loki := cluster.LokiForTest(t, cluster.LokiOptions{})
	admin, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	allow(t, admin, namespace)
	lokiURL, err := url.Parse(loki.URL())
	if err != nil {
		t.Fatal(err)
	}
	reading, err := reader.New(reader.Config{URL: lokiURL, HTTP: config.DefaultHTTPClientConfig})
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name, pod, kind string
		remove          bool
	}{
		{name: "about the namespace", kind: "Namespace"},
		{name: "after a failover, about a pod", pod: "hindsight-0", kind: "Pod"},
		{name: "after it was deleted", pod: "hindsight-0", kind: "Pod", remove: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			events := admin.CoreV1().Events(namespace)
			if test.remove {
				if err := events.Delete(t.Context(), canary.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			reg := prometheus.NewRegistry()
			o := canary.Options{
				Client: clientFor(t, c.ConfigFor(cluster.NobodyToken)), Namespace: namespace, Pod: test.pod,
				Loki:   &canary.Loki{Client: reading, Query: func(r *event.Record) string { return `{reason="HindsightCanary"}` }},
				Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: reg,
			}
			out, err := canary.New(o)
			if err != nil {
				t.Fatal(err)
			}
			seen := make(chan *corev1.Event, 100)
			w := watch.New(watch.Options{
				Client: clientFor(t, c.Config()), OwnNamespace: namespace, Logger: o.Logger,
				Handle: func(ctx context.Context, records []event.Record) error {
					for i := range records {
						r := &records[i]
						out.Observe(r)
						if r.Event == nil || r.Event.Name != canary.Name {
							continue
						}
						seen <- clone(t, r.Event)
						if err := push(ctx, loki.URL(), r); err != nil {
							return err
						}
					}
					return nil
				},
			})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{}, 2)
			for _, run := range []func(context.Context) error{w.Run, out.Run} {
				go func() { _ = run(ctx); done <- struct{}{} }()
			}
			defer func() { stop(); <-done; <-done }()

			watched, found := 0.0, 0.0
			wait.Until(t, "both metrics are set and no state is pending", func() bool {
				watchedBefore, foundBefore := watched, found
				watched, found = gauge(t, reg, "hindsight_canary_watch_seconds"), gauge(t, reg, "hindsight_canary_loki_seconds")
				// The metric grows while a state is pending.
				return watched > 0 && found > 0 && watched == watchedBefore && found == foundBefore
			})
			last := <-seen
			for len(seen) > 0 {
				last = <-seen
			}
			if got := last.InvolvedObject.Kind; got != test.kind {
				t.Errorf("the Event is about a %s, want a %s", got, test.kind)
			}
		})
	}
}

func clientFor(t *testing.T, cfg *rest.Config) *rest.RESTClient {
	t.Helper()
	client, err := watch.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func allow(t *testing.T, admin kubernetes.Interface, namespace string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "hindsight-canary"}
	if _, err := admin.RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"get", "create", "patch"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "nobody", APIGroup: rbacv1.GroupName}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// push stores the parts of a record that the canary queries.
func push(ctx context.Context, lokiURL string, r *event.Record) error {
	body, err := json.Marshal(map[string]any{"streams": []any{map[string]any{
		"stream": map[string]string{"reason": r.Event.Reason},
		"values": []any{[]any{strconv.FormatInt(r.Time.UnixNano(), 10), r.Event.Message, map[string]string{"event_version": r.Event.ResourceVersion}}},
	}}})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, lokiURL+"/loki/api/v1/push", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("loki responded %s", response.Status)
	}
	return nil
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// clone copies an Event and its strings, which belong to the watcher.
func clone(t *testing.T, e *corev1.Event) *corev1.Event {
	t.Helper()
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cloned := &corev1.Event{}
	if err := cloned.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	return cloned
}
