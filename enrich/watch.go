package enrich

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// resource is a resource of which all objects are watched.
type resource struct {
	schema.GroupVersionResource
	kind       string
	namespaced bool
}

const (
	kindPod        = "Pod"
	kindReplicaSet = "ReplicaSet"
	kindJob        = "Job"
	kindNode       = "Node"
	kindNamespace  = "Namespace"
)

var resources = []resource{
	{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, kindPod, true},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}, kindReplicaSet, true},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}, kindJob, true},
	{schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, kindNode, false},
	{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, kindNamespace, false},
}

// pageSize is the number of objects in a page of a list, which is the most that are in memory.
const pageSize = 500

// reflection keeps the objects of one resource, in one namespace or in all, in the store. It is the
// ListerWatcher and the Store of a cache.Reflector, which keeps the watch open.
//
// A Reflector collects all pages of a list before it hands them over: of 150,000 pods some 250 MB.
// So ListWithContext stores each page itself, and returns a list without items.
type reflection struct {
	resource
	number  uint16 // identifies it in the store
	client  metadata.ResourceInterface
	store   *store
	extract func(kind string, o *metav1.PartialObjectMetadata) (properties, []name)
	metrics *Metrics
	log     *slog.Logger

	mu       sync.Mutex
	list     uint16 // number of the last list
	complete bool   // the first list was read
	err      error  // of the last request; nil: it succeeded
	synced   chan struct{}
}

func (r *reflection) run(ctx context.Context) {
	options := cache.ReflectorOptions{Name: "enrich " + r.Resource, TypeDescription: r.Resource}
	reflector := cache.NewReflectorWithOptions(r, &metav1.PartialObjectMetadata{}, r, options)
	reflector.RunWithContext(klog.NewContext(ctx, logr.Discard())) // failed logs
}

// IsWatchListSemanticsUnSupported keeps the Reflector from collecting a streamed list.
func (r *reflection) IsWatchListSemanticsUnSupported() bool { return true }

// ListWithContext implements cache.ListerWithContext.
func (r *reflection) ListWithContext(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	r.metrics.lists.WithLabelValues(r.Resource).Inc()
	r.mu.Lock()
	r.list++
	list := r.list
	r.mu.Unlock()
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := r.client.List(ctx, options)
		if err != nil {
			return nil, r.failed(ctx, fmt.Errorf("list: %w", err))
		}
		for i := range page.Items {
			r.set(&page.Items[i], list)
		}
		if page.Continue == "" {
			return &metav1.PartialObjectMetadataList{TypeMeta: page.TypeMeta, ListMeta: page.ListMeta}, nil
		}
		options.Continue = page.Continue
	}
}

// WatchWithContext implements cache.WatcherWithContext.
func (r *reflection) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	r.metrics.watches.WithLabelValues(r.Resource).Inc()
	w, err := r.client.Watch(ctx, options)
	if err != nil {
		return nil, r.failed(ctx, fmt.Errorf("watch: %w", err))
	}
	r.succeeded()
	return w, nil
}

// List and Watch are the methods without a context of cache.ListerWatcher.
func (r *reflection) List(o metav1.ListOptions) (runtime.Object, error) {
	return r.ListWithContext(context.Background(), o)
}

func (r *reflection) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return r.WatchWithContext(context.Background(), o)
}

func (r *reflection) set(o *metav1.PartialObjectMetadata, list uint16) {
	p, names := r.extract(r.kind, o)
	r.store.set(uidKey(string(o.UID)), r.number, list, p, names...)
}

// Add implements cache.ReflectorStore.
func (r *reflection) Add(o any) error { return r.Update(o) }

// Update implements cache.ReflectorStore.
func (r *reflection) Update(o any) error {
	if m, ok := o.(*metav1.PartialObjectMetadata); ok {
		r.mu.Lock()
		list := r.list
		r.mu.Unlock()
		r.set(m, list)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (r *reflection) Delete(o any) error {
	if m, ok := o.(*metav1.PartialObjectMetadata); ok {
		r.store.delete(uidKey(string(m.UID)), time.Now())
	}
	return nil
}

// Replace implements cache.ReflectorStore. It is called after a list, which is stored already.
func (r *reflection) Replace([]any, string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store.endList(r.number, r.list, time.Now())
	r.err = nil
	if !r.complete {
		r.complete = true
		close(r.synced)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (r *reflection) Resync() error { return nil }

func (r *reflection) succeeded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = nil
}

// failed remembers the error of a request, and logs it unless the previous request failed, too.
func (r *reflection) failed(ctx context.Context, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return err
	}
	if r.err == nil {
		r.log.Warn("cannot read the metadata of objects, retrying; their Events are delivered without it",
			"resource", r.GroupResource().String(), "err", err)
	}
	r.err = err
	return err
}

// problem returns why the store is not kept up to date, nil if it is.
func (r *reflection) problem() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err == nil:
		return nil
	case apierrors.IsForbidden(r.err):
		return fmt.Errorf("%s: %w; grant get, list and watch on %s, or remove the key enrich that needs them", r.Resource, r.err, r.GroupResource())
	}
	return fmt.Errorf("%s: %w", r.Resource, r.err)
}
