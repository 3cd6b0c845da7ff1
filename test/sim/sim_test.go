package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// start returns a sim and a client of it that asks for an encoding.
func start(t *testing.T, events int, contentType string) (url string, client *kubernetes.Clientset) {
	t.Helper()
	handler, err := newSim(events, time.Date(2026, 3, 6, 14, 5, 43, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections() // watches
		server.Close()
	})
	config := &rest.Config{Host: server.URL, QPS: -1}
	config.AcceptContentTypes, config.ContentType = contentType, contentType
	client, err = kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return server.URL, client
}

func post(t *testing.T, url string) {
	t.Helper()
	resp, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
}

// list returns all pages, by key.
func list(t *testing.T, client *kubernetes.Clientset, limit int64) (map[string]corev1.Event, string) {
	t.Helper()
	all := make(map[string]corev1.Event)
	last := ""
	for options := (metav1.ListOptions{Limit: limit}); ; {
		page, err := client.CoreV1().Events("").List(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			key := e.Namespace + "/" + e.Name
			if key <= last {
				t.Fatalf("%s comes after %s", key, last)
			}
			last, all[key] = key, e
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return all, page.ResourceVersion
		}
	}
}

func TestWhatIsListedIsWatchedInBothEncodings(t *testing.T) {
	const backlog, written = 2_000, 1_000
	for _, contentType := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
		t.Run(contentType, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			url, client := start(t, backlog, contentType)
			all, version := list(t, client, 300)
			if len(all) != backlog {
				t.Fatalf("%d Events are listed, want %d", len(all), backlog)
			}
			w, err := client.CoreV1().Events("").Watch(ctx, metav1.ListOptions{ResourceVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			post(t, fmt.Sprintf("%s/sim/write?events=%d", url, written))
			bumps := 0
			for range written {
				change, ok := <-w.ResultChan()
				if !ok {
					t.Fatal("the watch has ended")
				}
				e := change.Object.(*corev1.Event)
				if e.ResourceVersion <= version {
					t.Fatalf("version %s comes after %s", e.ResourceVersion, version)
				}
				version = e.ResourceVersion
				_, known := all[e.Namespace+"/"+e.Name]
				if change.Type == "MODIFIED" {
					bumps++
				}
				if known != (change.Type == "MODIFIED") {
					t.Fatalf("%s of %s/%s", change.Type, e.Namespace, e.Name)
				}
				all[e.Namespace+"/"+e.Name] = *e
			}
			if want := (written - bumpDistance) * 3 / 10; bumps < want-3 || bumps > want+3 {
				t.Errorf("%d Events were counted up, want %d", bumps, want)
			}
			again, _ := list(t, client, 0)
			if len(again) != len(all) {
				t.Errorf("%d Events are listed after the watch, want %d", len(again), len(all))
			}
			for key, e := range again {
				if e.ResourceVersion != all[key].ResourceVersion || e.UID != all[key].UID {
					t.Fatalf("listed and watched differ:\n%+v\n%+v", e, all[key])
				}
				if len(e.ManagedFields) != 1 || e.ManagedFields[0].Time.IsZero() {
					t.Fatalf("no managedFields: %+v", e)
				}
			}
		})
	}
}

func TestManyStreams(t *testing.T) {
	streams := make(map[string]bool)
	for _, e := range population() {
		streams[e.Namespace+"/"+e.Reason] = true
	}
	if len(streams) < 2000 {
		t.Errorf("%d pairs of namespace and reason, want 2000", len(streams))
	}
}

// request is a push with one entry in each stream.
func request(version string, labels ...string) string {
	var push []byte
	for _, l := range labels {
		metadata := appendField(appendField(nil, 1, []byte("event_version")), 2, []byte(version))
		entry := appendField(appendField(nil, 1, nil), 2, []byte("line"))
		if version != "" {
			entry = appendField(entry, 3, metadata)
		}
		push = protowire.AppendBytes(protowire.AppendTag(push, 1, protowire.BytesType),
			appendField(appendField(nil, 1, []byte(l)), 2, entry))
	}
	return string(snappy.Encode(nil, push))
}

func TestLokiCountsAndNoticesRepeats(t *testing.T) {
	url, _ := start(t, 10, runtime.ContentTypeProtobuf)
	push := func(body string) int {
		resp, err := http.Post(url+"/loki/api/v1/push", "application/x-protobuf", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, body := range []string{
		request("1000000003", `{a="1"}`),
		request("1000000003", `{a="1"}`), // again
		request("1000000004", `{a="2"}`),
		request("", `{a="1"}`, `{a="2"}`), // not of ours
		request("", `{a="1"}`),            // again
	} {
		if got := push(body); got != http.StatusNoContent {
			t.Fatalf("a push is answered with %d", got)
		}
	}
	if got := push("no snappy"); got != http.StatusBadRequest {
		t.Errorf("what is no push is answered with %d", got)
	}
	post(t, url+"/sim/loki?status=503")
	if got := push(request("1000000005", `{a="1"}`)); got != http.StatusServiceUnavailable {
		t.Errorf("told to refuse, it answers %d", got)
	}
	resp, err := http.Get(url + "/sim/received?entries=4")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got received
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Entries != 4 || got.Repeated != 2 || got.Pushes != 5 || got.Refused != 1 || got.Streams != 2 {
		t.Errorf("received %+v", got)
	}
}
