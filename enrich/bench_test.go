package enrich

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

// BenchmarkFill reads the metadata of 150,000 pods of 15,000 ReplicaSets from a server, page by
// page. It reports the bytes of heap that remain for each pod, and the most that were in use.
func BenchmarkFill(b *testing.B) {
	const n = 150_000
	server := metadataServer(b, n)
	c := DefaultConfig()
	c.Workload, c.Labels = true, map[string]string{"app": "app.kubernetes.io/name", "team": "example.com/team"}
	for b.Loop() {
		before := heap()
		client, err := metadata.NewForConfig(&rest.Config{Host: server, QPS: -1})
		if err != nil {
			b.Fatal(err)
		}
		e := New(Options{Config: c, Client: client})
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); e.Run(ctx) }()
		peak := make(chan uint64)
		filled := make(chan struct{})
		go func() {
			most := uint64(0)
			for {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
				select {
				case <-time.After(20 * time.Millisecond):
				case <-filled:
					peak <- most
					return
				}
			}
		}()
		if err := e.WaitFilled(ctx); err != nil {
			b.Fatal(err)
		}
		close(filled)
		b.ReportMetric(float64(<-peak-before)/(1<<20), "peak-MiB")
		b.ReportMetric(float64(heap()-before)/n, "B/pod")
		if got := e.Objects(); got != n+n/10 {
			b.Errorf("%d objects, want %d", got, n+n/10)
		}
		cancel()
		<-ended
	}
}

// metadataServer serves lists of n pods, of n/10 ReplicaSets, and of no other objects.
func metadataServer(b *testing.B, n int) string {
	scheme := runtimeapi.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		b.Fatal(err)
	}
	encoder := protobuf.NewSerializer(scheme, scheme)
	serve := func(total int, object func(i int) metav1.PartialObjectMetadata) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
			if r.URL.Query().Has("watch") {
				<-r.Context().Done()
				return
			}
			from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
			limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
			list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"}}
			list.ResourceVersion = "10"
			for i := from; i < min(from+limit, total); i++ {
				list.Items = append(list.Items, object(i))
			}
			if from+limit < total {
				list.Continue = strconv.Itoa(from + limit)
			}
			if err := encoder.Encode(list, w); err != nil {
				b.Error(err)
			}
		}
	}
	yes := true
	id := func(kind string, i int) types.UID {
		return types.UID(uuid.NewSHA1(uuid.Nil, fmt.Append(nil, kind, i)).String())
	}
	meta := func(kind, owner string, i int, name, of string) metav1.PartialObjectMetadata {
		o := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "team-" + of[len(of)-1:], UID: id(kind, i),
			Labels: map[string]string{
				"app.kubernetes.io/name": of, "example.com/team": "team-" + of[len(of)-1:], "pod-template-hash": "79b5894fc8",
				"app.kubernetes.io/instance": of, "app.kubernetes.io/version": "1.14.2", "app.kubernetes.io/managed-by": "Helm",
			},
			Annotations:     map[string]string{"prometheus.io/scrape": "true", "checksum/config": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: owner, Name: of, UID: id(owner, i/10), Controller: &yes}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager", FieldsV1: &metav1.FieldsV1{Raw: make([]byte, 1200)}}},
		}}
		return o
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/pods", serve(n, func(i int) metav1.PartialObjectMetadata {
		return meta(kindPod, kindReplicaSet, i, fmt.Sprintf("service-%d-79b5894fc8-%05d", i/10, i), fmt.Sprintf("service-%d-79b5894fc8", i/10))
	}))
	mux.HandleFunc("/apis/apps/v1/replicasets", serve(n/10, func(i int) metav1.PartialObjectMetadata {
		return meta(kindReplicaSet, "Deployment", i, fmt.Sprintf("service-%d-79b5894fc8", i), fmt.Sprintf("service-%d", i))
	}))
	mux.HandleFunc("/", serve(0, nil))
	server := httptest.NewServer(mux)
	b.Cleanup(server.Close)
	return server.URL
}

// BenchmarkApply adds attributes to an Event about a pod of a Deployment.
func BenchmarkApply(b *testing.B) {
	c := DefaultConfig()
	c.Workload, c.Labels = true, map[string]string{"app": "app.kubernetes.io/name"}
	c.NamespaceLabels = map[string]string{"team": "example.com/team"}
	e := New(Options{Config: c, Client: nilClient{}})
	add := func(kind string, o *metav1.PartialObjectMetadata) {
		o.UID = uidOf(o.UID)
		for i := range o.OwnerReferences {
			o.OwnerReferences[i].UID = uidOf(o.OwnerReferences[i].UID)
		}
		p, names := e.extractObject(kind, o)
		e.store.set(uidKey(string(o.UID)), 0, 0, p, names...)
	}
	labels := map[string]string{"app.kubernetes.io/name": "web"}
	add(kindNamespace, metadataOf("v1", kindNamespace, "", "prod", map[string]string{"example.com/team": "red"}))
	add(kindReplicaSet, metadataOf("apps/v1", kindReplicaSet, "prod", "web-1", labels, "Deployment", "web"))
	add(kindPod, metadataOf("v1", kindPod, "prod", "web-1-a", labels, kindReplicaSet, "web-1"))
	ev := about(kindPod, "prod", "web-1-a")
	ev.InvolvedObject.UID = uidOf(ev.InvolvedObject.UID)
	records := []event.Record{{Event: ev}}
	b.ReportAllocs()
	for b.Loop() {
		e.Apply(b.Context(), records)
	}
	if len(records[0].Attributes) != 4 {
		b.Errorf("got %v", records[0].Attributes)
	}
}

// uidOf returns a UUID for a name.
func uidOf(name types.UID) types.UID {
	return types.UID(uuid.NewSHA1(uuid.Nil, []byte(name)).String())
}

// nilClient makes no requests.
type nilClient struct{ metadata.Interface }

func (nilClient) Resource(schema.GroupVersionResource) metadata.Getter { return nilGetter{} }

type nilGetter struct{ metadata.Getter }

func (nilGetter) Namespace(string) metadata.ResourceInterface { return nil }
