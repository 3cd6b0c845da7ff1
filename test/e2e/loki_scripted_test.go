//go:build e2e

package e2e

import (
	encoding "encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// scripted is an API server that knows nothing but Events, of which a test says
// what they are: a real one stamps them with its own time, and has no room for
// thousands of namespaces in a test.
type scripted struct {
	server *httptest.Server

	mu      sync.Mutex      // guards the rest
	events  []*corev1.Event // in the order of their versions
	changed chan struct{}   // closed when there are more
}

// serveEvents starts one that ends with the test. Versions and uids are given to
// the Events in their order.
func serveEvents(t *testing.T, events ...*corev1.Event) *scripted {
	s := &scripted{changed: make(chan struct{})}
	s.add(events...)
	s.server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

func (s *scripted) add(events ...*corev1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		version := 1000 + 3*(len(s.events)+1)
		e.UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", version))
		e.ResourceVersion = strconv.Itoa(version)
		s.events = append(s.events, e)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// states are all Events, as a ledger has them.
func (s *scripted) states() map[string]*corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make(map[string]*corev1.Event, len(s.events))
	for _, e := range s.events {
		states[string(e.UID)+"@"+e.ResourceVersion] = e
	}
	return states
}

func (s *scripted) kubeconfig(t *testing.T) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: s.server.URL}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/api/v1/namespaces/kube-system":
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		fmt.Fprint(w, `{"metadata":{"name":"kube-system","uid":"00000000-0000-4000-8000-000000000001"}}`)
	case r.URL.Path != "/api/v1/events":
		http.NotFound(w, r)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r)
	default:
		s.list(w, r)
	}
}

// list answers in the order of keys, as etcd has them.
func (s *scripted) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	events := s.events[:len(s.events):len(s.events)]
	s.mu.Unlock()
	version, after := len(events), 0
	if token := r.URL.Query().Get("continue"); token != "" {
		if _, err := fmt.Sscanf(token, "%d-%d", &version, &after); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	sorted := slices.Clone(events[:version])
	slices.SortFunc(sorted, func(a, b *corev1.Event) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	list := &corev1.EventList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(1000 + 3*version)}}
	end := min(after+limit, len(sorted))
	if end < len(sorted) {
		list.Continue = fmt.Sprintf("%d-%d", version, end)
	}
	for _, e := range sorted[after:end] {
		list.Items = append(list.Items, *e)
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	_, _ = w.Write(inProtobuf("EventList", list))
}

// watch sends what is newer than the version asked for, and then what is added.
func (s *scripted) watch(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	end := time.After(time.Duration(seconds) * time.Second)
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	w.WriteHeader(http.StatusOK)
	sent := (from - 1000) / 3
	for {
		s.mu.Lock()
		events, changed := s.events, s.changed
		s.mu.Unlock()
		for ; sent < len(events); sent++ {
			frame, err := (&metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: inProtobuf("Event", events[sent])}}).Marshal()
			if err != nil {
				panic(err)
			}
			frame = append(encoding.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
			if _, err := w.Write(frame); err != nil {
				return
			}
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-end:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// inProtobuf encodes an object as API servers do.
func inProtobuf(kind string, o interface{ Marshal() ([]byte, error) }) []byte {
	raw, err := o.Marshal()
	if err != nil {
		panic(err)
	}
	object, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: kind}, Raw: raw}).Marshal()
	if err != nil {
		panic(err)
	}
	return append([]byte("k8s\x00"), object...)
}

// scriptedEvent is the n-th Event of a test, written at that time. It is as large
// as most are, managedFields included.
func scriptedEvent(n int, at time.Time) *corev1.Event {
	when := metav1.NewTime(at.Truncate(time.Second))
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%d", n%40),
			// Keys that are in another order than the versions:
			Name:              fmt.Sprintf("web-%d.%016x", n%100, uint64(n)*0x9E3779B97F4A7C15),
			CreationTimestamp: when,
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &when,
				FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:source":{"f:component":{},"f:host":{}},"f:type":{}}`),
			}},
		},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: fmt.Sprintf("team-%d", n%40), Name: fmt.Sprintf("web-%d", n%100), UID: types.UID(fmt.Sprintf("pod-%d", n%100))},
		Reason:         []string{"Pulled", "Created", "Started", "Killing", "Unhealthy"}[n/40%5],
		Message:        fmt.Sprintf("message %d of a container that has something to say", n),
		Source:         corev1.EventSource{Component: "kubelet", Host: fmt.Sprintf("node-%d", n%7)},
		Type:           []string{corev1.EventTypeNormal, corev1.EventTypeWarning}[n/3%2],
		FirstTimestamp: when,
		LastTimestamp:  when,
		Count:          1,
	}
}
