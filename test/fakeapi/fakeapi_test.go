package fakeapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// client sends requests in JSON.
type client struct {
	t    testing.TB
	http http.Client
	host string
}

func newClient(s *Server) *client {
	cfg := s.Config()
	return &client{s.t, http.Client{Transport: cfg.Transport}, cfg.Host}
}

func (c *client) open(method, path string, body any) *http.Response {
	c.t.Helper()
	var in bytes.Buffer
	if body != nil {
		in.Write(must(json.Marshal(body)))
	}
	response, err := c.http.Do(must(http.NewRequestWithContext(c.t.Context(), method, c.host+path, &in)))
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

func (c *client) do(method, path string, body any, code int, answer any) {
	c.t.Helper()
	response := c.open(method, path, body)
	defer response.Body.Close()
	b := must(io.ReadAll(response.Body))
	if response.StatusCode != code {
		c.t.Fatalf("%s %s: %d, want %d: %s", method, path, response.StatusCode, code, b)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		c.t.Fatalf("%s %s: %v: %s", method, path, err, b)
	}
}

func named(namespace, name string) *corev1.Event {
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func names(list *corev1.EventList) string {
	var all []string
	for _, e := range list.Items {
		all = append(all, e.Name+"@"+e.ResourceVersion)
	}
	return strings.Join(all, " ")
}

func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t)
		c := newClient(s)
		for _, name := range []string{"c", "a", "b"} {
			s.Put(named("team-a", name))
		}
		s.Put(named("team-b", "d"))
		s.Put(named("team-a", "c"))
		s.Delete("team-a", "b")
		var page, rest corev1.EventList
		c.do("GET", "/api/v1/events?limit=2", nil, 200, &page)
		s.Put(named("team-a", "e"))
		c.do("GET", "/api/v1/events?limit=2&continue="+page.Continue, nil, 200, &rest)
		if names(&page) != "a@102 c@105" || names(&rest) != "d@104" || page.ResourceVersion != "106" || rest.ResourceVersion != "106" || rest.Continue != "" {
			t.Errorf("pages %s at %s and %s at %s", names(&page), page.ResourceVersion, names(&rest), rest.ResourceVersion)
		}
		c.do("GET", "/api/v1/namespaces/team-a/events?resourceVersion=103", nil, 200, &page)
		if names(&page) != "a@102 b@103 c@101" {
			t.Errorf("at 103: %s", names(&page))
		}

		s.Compact(107)
		var status metav1.Status
		c.do("GET", "/api/v1/events?limit=2&continue=106:team-a/c", nil, 410, &status)
		c.do("GET", "/api/v1/events?limit=2&continue="+status.Continue, nil, 200, &rest)
		if names(&rest) != "e@107 d@104" || rest.ResourceVersion != "107" {
			t.Errorf("the list that continues at a later version is %s at %s", names(&rest), rest.ResourceVersion)
		}
		c.do("GET", "/api/v1/events?resourceVersion=200", nil, 504, &status)
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t)
		c := newClient(s)
		s.Put(named("team-a", "a"))
		s.Put(named("team-b", "b"))
		follow := func(path string) string {
			t.Helper()
			response := c.open("GET", path, nil)
			defer response.Body.Close()
			var got []string
			for dec := json.NewDecoder(response.Body); dec.More(); {
				var m struct {
					Type   string
					Object corev1.Event
				}
				if err := dec.Decode(&m); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s %s@%s", m.Type, m.Object.Name, m.Object.ResourceVersion))
			}
			return strings.Join(got, ", ")
		}
		s.Put(named("team-a", "a"))
		s.Delete("team-a", "a")
		if got, want := follow("/api/v1/events?watch=1&resourceVersion=101&timeoutSeconds=5"), "ADDED b@102, MODIFIED a@103, DELETED a@104"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := follow("/api/v1/namespaces/team-b/events?watch=1&resourceVersion=100&timeoutSeconds=5"), "ADDED b@102"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		s.Compact(103)
		if got, want := follow("/api/v1/events?watch=1&resourceVersion=102&timeoutSeconds=5"), "ERROR @"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		s.Restore(101)
		if e := s.Event("team-a", "a"); e == nil || e.ResourceVersion != "101" || s.Event("team-b", "b") != nil || s.Version() != 101 {
			t.Errorf("after the restore: %v, version %d", e, s.Version())
		}
	})
}

func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t)
		c := newClient(s)
		var e corev1.Event
		const events = "/api/v1/namespaces/default/events"
		c.do("POST", events, map[string]any{"metadata": map[string]any{"name": "a"}, "reason": "Testing"}, 201, &e)
		c.do("POST", events, map[string]any{"metadata": map[string]any{"name": "a"}}, 409, &metav1.Status{})
		c.do("PATCH", events+"/a", map[string]any{"count": 2}, 200, &e)
		if e.Count != 2 || e.Reason != "Testing" || e.ResourceVersion != "102" || e.UID == "" {
			t.Errorf("after the patch: %+v", e)
		}
		c.do("PATCH", events+"/b", nil, 404, &metav1.Status{})

		const leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
		l := coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
		c.do("GET", leases+"/a", nil, 404, &metav1.Status{})
		c.do("POST", leases, &l, 201, &l)
		old := l
		c.do("PUT", leases+"/a", &l, 200, &l)
		c.do("PUT", leases+"/a", &old, 409, &metav1.Status{})
		s.UpdateLease("default", "a", func(l *coordinationv1.Lease) { l.Labels = map[string]string{"by": "another"} })
		c.do("GET", leases+"/a", nil, 200, &l)
		if l.Labels["by"] != "another" || l.ResourceVersion == old.ResourceVersion {
			t.Errorf("the Lease is %+v", l)
		}
		s.DeleteLease("default", "a")
		c.do("PUT", leases+"/a", &l, 409, &metav1.Status{})
	})
}

func TestIntercept(t *testing.T) {
	s := New(t)
	s.SetClusterUID("")
	c := &client{t: t, host: s.Listen()}
	c.do("GET", "/api/v1/namespaces/kube-system", nil, 403, &metav1.Status{})
	s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/v1/events" {
			return false
		}
		Fail(w, r, http.StatusTooManyRequests, "too many requests")
		return true
	})
	c.do("GET", "/api/v1/events?limit=1", nil, 429, &metav1.Status{})
	s.SetClusterUID("uid-b")
	var namespace corev1.Namespace
	c.do("GET", "/api/v1/namespaces/kube-system", nil, 200, &namespace)
	if namespace.UID != "uid-b" || s.CountRequests("GET", "kube-system") != 2 {
		t.Errorf("uid %s, requests %q", namespace.UID, s.Requests())
	}
}
