package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/internal/kube"
)

// client reads and writes one Lease. Each request has a timeout.
type client struct {
	rest            *rest.RESTClient
	namespace, name string
	timeout         time.Duration
}

func newClient(o Options) (*client, error) {
	cfg := rest.CopyConfig(o.Kubernetes)
	// With HTTP/2, a renewal would share its connection with the watch, and retries would use the
	// same dead connection until a ping times out, which takes longer than the Lease. With HTTP/1.1, a
	// request that times out closes its connection.
	cfg.NextProtos = []string{"http/1.1"}

	c, err := kube.NewClient(cfg, coordinationv1.SchemeGroupVersion, runtime.ContentTypeJSON, &coordinationv1.Lease{})
	if err != nil {
		return nil, err
	}
	// Half the renew deadline leaves time for a second attempt, as in client-go's components.
	return &client{rest: c, namespace: o.Namespace, name: o.Name, timeout: o.RenewDeadline / 2}, nil
}

func (c *client) get(ctx context.Context) (*coordinationv1.Lease, error) {
	return c.do(ctx, "get", c.rest.Get().Name(c.name))
}

func (c *client) create(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return c.do(ctx, "create", c.rest.Post().Body(l))
}

// update fails with a conflict unless the Lease still has the resourceVersion of l.
func (c *client) update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return c.do(ctx, "update", c.rest.Put().Name(c.name).Body(l))
}

// renew changes the renew time alone, so that the checkpoint is not sent. It fails with a conflict
// unless the Lease still has the resourceVersion of l.
func (c *client) renew(ctx context.Context, l *coordinationv1.Lease, now metav1.MicroTime) (*coordinationv1.Lease, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": l.ResourceVersion},
		"spec":     map[string]any{"renewTime": now},
	})
	if err != nil {
		return nil, err
	}
	return c.do(ctx, "patch", c.rest.Patch(types.MergePatchType).Name(c.name).Body(patch))
}

var errNoResponse = errors.New("no response from the API server")

func (c *client) do(ctx context.Context, verb string, r *rest.Request) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("%w within %v", errNoResponse, c.timeout))
	defer cancel()
	l := &coordinationv1.Lease{}
	// The callers retry, with logs and a bound.
	err := r.Namespace(c.namespace).Resource("leases").MaxRetries(0).Do(ctx).Into(l)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s lease %s/%s: %w", verb, c.namespace, c.name, err)
	}
	return l, nil
}

// denied reports whether permission is missing.
func denied(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// hint returns the remedy for a denied request.
func (c *client) hint(err error) string {
	if apierrors.IsUnauthorized(err) {
		return "the API server rejects the credentials"
	}
	return fmt.Sprintf("grant get, create, update and patch on leases in namespace %s with a Role and a RoleBinding there: apiGroups [coordination.k8s.io], resources [leases], verbs [get, create, update, patch]", c.namespace)
}

// conflict reports whether another client has written or created the Lease meanwhile.
func conflict(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
