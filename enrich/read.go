package enrich

import (
	"context"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
)

const (
	// maxReads bounds the objects that wait to be read; others are read for a later Event.
	maxReads    = 1000
	readTimeout = 10 * time.Second
	// readWatch is the number of no watch: of objects in the store that were read singly. They are
	// read again once keepDeleted has passed.
	readWatch = math.MaxUint16
)

// reader reads the metadata of single objects of other kinds, such as a Deployment, when an Event
// about them arrives: each once in Config.KeepDeleted, also if it was not found.
type reader struct {
	*Enricher
	client   metadata.Interface
	requests chan readRequest
}

type readRequest struct {
	key    key
	object corev1.ObjectReference
}

func newReader(e *Enricher, client metadata.Interface) *reader {
	return &reader{Enricher: e, client: client, requests: make(chan readRequest, maxReads)}
}

// read requests an object. It does not block.
func (r *reader) read(k key, o *corev1.ObjectReference) {
	select {
	case r.requests <- readRequest{k, *o}:
	default:
	}
}

func (r *reader) run(ctx context.Context) {
	for {
		select {
		case request := <-r.requests:
			if _, known := r.store.get(request.key); !known {
				r.get(ctx, request)
			}
		case <-ctx.Done():
			return
		}
	}
}

// get reads an object and stores it. An object that was not found, or that has another uid, is
// stored without values.
func (r *reader) get(ctx context.Context, request readRequest) {
	o := &request.object
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	version, err := schema.ParseGroupVersion(o.APIVersion)
	if err != nil {
		return
	}
	// The plural of a custom resource may be irregular; it is then not found.
	plural, _ := meta.UnsafeGuessKindToResource(version.WithKind(o.Kind))
	r.metrics.reads.Inc()
	found, err := r.client.Resource(plural).Namespace(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
	var p properties
	switch {
	case err == nil && found.UID == o.UID:
		p, _ = r.extractObject(o.Kind, found)
	case err == nil, apierrors.IsNotFound(err), apierrors.IsForbidden(err), apierrors.IsMethodNotSupported(err):
	default:
		r.log.Debug("cannot read the metadata of an object", "kind", o.Kind, "namespace", o.Namespace, "name", o.Name, "err", err)
		return
	}
	r.store.set(request.key, readWatch, 0, p)
	r.store.delete(request.key, time.Now()) // it expires like a deleted object
}
