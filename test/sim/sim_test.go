package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
)

var began = time.Date(2026, 3, 6, 14, 5, 43, 0, time.UTC)

// encoded are the Events that all sims of the tests serve.
var encoded = sync.OnceValues(func() (*encoding, error) { return newEncoding(shape{streams: 2000}) })

func served(t testing.TB) *encoding {
	t.Helper()
	e, err := encoded()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// start returns a sim and a client of it.
func start(t *testing.T, events int) (url string, client *kubernetes.Clientset) {
	t.Helper()
	server := httptest.NewServer(newSim(events, served(t), began))
	t.Cleanup(func() {
		server.CloseClientConnections() // watches
		server.Close()
	})
	config := &rest.Config{Host: server.URL, QPS: -1}
	config.AcceptContentTypes, config.ContentType = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
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

// times returns the count of an Event.
func times(e corev1.Event) int32 {
	if e.Series != nil {
		return e.Series.Count
	}
	return max(e.Count, 1)
}

func TestListsAndWatchesAgree(t *testing.T) {
	const backlog, written = 2_000, 8_000
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	url, client := start(t, backlog)
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
		before, known := all[e.Namespace+"/"+e.Name]
		if change.Type == "MODIFIED" {
			bumps++
		}
		if known != (change.Type == "MODIFIED") {
			t.Fatalf("%s of %s/%s", change.Type, e.Namespace, e.Name)
		}
		if known && (times(*e) <= times(before) || e.UID != before.UID) {
			t.Fatalf("counted up is no\n%+v\n%+v", before, e)
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
}

func TestABacklogIsRealistic(t *testing.T) {
	const events = 30_000
	_, client := start(t, events)
	all, _ := list(t, client, 0)
	streams, reasons := make(map[string]bool), make(map[string]map[string]bool)
	bumps := 0
	for key, e := range all {
		streams[e.Namespace+"/"+e.Reason] = true
		if reasons[e.Namespace] == nil {
			reasons[e.Namespace] = make(map[string]bool)
		}
		reasons[e.Namespace][e.Reason] = true
		if times(e) > 1 {
			bumps++
		}
		if len(e.ManagedFields) != 1 || len(e.ManagedFields[0].FieldsV1.GetRawBytes()) < 100 {
			t.Fatalf("%s: managedFields: %+v", key, e.ManagedFields)
		}
		if age := began.Sub(e.ManagedFields[0].Time.Time); age < 0 || age > time.Hour {
			t.Fatalf("%s was written %v before the start, not in the hour before", key, age)
		}
	}
	if len(streams) < 2000 {
		t.Errorf("%d pairs of namespace and reason, want 2000", len(streams))
	}
	for namespace, of := range reasons { // if they are drawn independently, nearly all meet
		if len(of) < 20 {
			t.Errorf("%s has %d reasons", namespace, len(of))
		}
	}
	if got := float64(bumps) / events; got < 0.29 || got > 0.31 {
		t.Errorf("%.0f%% of the Events have been counted up, want 30%%", 100*got)
	}
}

func TestSpreadOverStreams(t *testing.T) {
	for _, test := range []struct {
		name              string
		shape             shape
		perSecond         int     // streams with an Event among 500, on average
		warnings, largest float64 // shares of all Events
	}{
		{"evenly", shape{streams: 2000}, 500, 0.15, 0.00055},
		{"evenly, few", shape{streams: 200}, 200, 0.15, 0.005},
		{"Zipf", shape{streams: 2000, exponent: 0.9}, 280, 0.14, 0.085},
	} {
		t.Run(test.name, func(t *testing.T) {
			const seconds, rate = 60, 500
			all := test.shape.population()
			enc := encoding{spread: test.shape.spread(all)}
			counts, warnings, active := make(map[string]int), 0, 0
			for second := range seconds {
				within := make(map[string]bool)
				for i := range rate {
					e := all[enc.object(1+second*rate+i)]
					within[e.Namespace+"/"+e.Reason] = true
					counts[e.Namespace+"/"+e.Reason]++
					if e.Type == corev1.EventTypeWarning {
						warnings++
					}
				}
				active += len(within)
			}
			largest := 0
			for _, n := range counts {
				largest = max(largest, n)
			}
			t.Logf("%d streams, %d of them a second; shares of Warnings: %.4f, of the largest stream: %.4f", len(counts), active/seconds, float64(warnings)/seconds/rate, float64(largest)/seconds/rate)
			for _, f := range []struct {
				name      string
				got, want float64
			}{
				{"streams in a second", float64(active) / seconds, float64(test.perSecond)},
				{"share of Warnings", float64(warnings) / seconds / rate, test.warnings},
				{"share of the largest stream", float64(largest) / seconds / rate, test.largest},
			} {
				if f.got < 0.95*f.want || f.got > 1.05*f.want {
					t.Errorf("%s: %v, want %v", f.name, f.got, f.want)
				}
			}
		})
	}
}

func TestNumberOfEvents(t *testing.T) {
	for _, events := range []int{0, 1, 100_000} {
		t.Run(fmt.Sprint(events), func(t *testing.T) {
			_, client := start(t, events)
			page, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{Limit: 500})
			if err != nil {
				t.Fatal(err)
			}
			got := len(page.Items)
			if page.RemainingItemCount != nil {
				got += int(*page.RemainingItemCount)
			}
			if got != events {
				t.Errorf("%d Events are announced", got)
			}
		})
	}
}

func TestRequestsAreCounted(t *testing.T) {
	url, _ := start(t, 1)
	as := func(path string) coordinationv1client.LeaseInterface {
		client, err := coordinationv1client.NewForConfig(&rest.Config{
			Host: url + path, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON},
		})
		if err != nil {
			t.Fatal(err)
		}
		return client.Leases("bench")
	}
	leases := as("")
	l, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "one"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, position := range []string{"1", "1", "2"} {
		l.Annotations = map[string]string{"positions": position}
		if l, err = leases.Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := as("/as/standby").Get(t.Context(), "one", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(url + "/sim/requests")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]count
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]count{
		"POST /apis/coordination.k8s.io/v1/namespaces/bench/leases":               {Requests: 1},
		"PUT /apis/coordination.k8s.io/v1/namespaces/bench/leases/one":            {Requests: 3, Changes: 2},
		"GET /as/standby/apis/coordination.k8s.io/v1/namespaces/bench/leases/one": {Requests: 1},
	} {
		if strings.HasPrefix(key, "GET") != (got[key].Bytes == 0) {
			t.Errorf("%s: %d bytes", key, got[key].Bytes)
		}
		want.Bytes = got[key].Bytes
		if got[key] != want {
			t.Errorf("%s: %+v, want %+v", key, got[key], want)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("there is more: %v", got)
	}
}

func TestOnlyProtobufIsServed(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/events", nil)
	r.Header.Set("Accept", runtime.ContentTypeJSON)
	w := httptest.NewRecorder()
	newSim(1, served(t), began).ServeHTTP(w, r)
	if w.Code != http.StatusNotAcceptable {
		t.Errorf("answered with %d", w.Code)
	}
}

// nowhere is a client that takes everything.
type nowhere struct {
	header http.Header
	bytes  int64
}

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(int)             {}
func (n *nowhere) Write(b []byte) (int, error) { n.bytes += int64(len(b)); return len(b), nil }

// A client needs some 5 µs to decode a state.
func BenchmarkServe(b *testing.B) {
	handler := newSim(10_000, served(b), began)
	r := httptest.NewRequest(http.MethodGet, "/api/v1/events", nil)
	r.Header.Set("Accept", runtime.ContentTypeProtobuf)
	for b.Loop() {
		w := nowhere{header: make(http.Header)}
		handler.ServeHTTP(&w, r)
		b.SetBytes(w.bytes)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/event")
}
