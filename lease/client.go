package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/internal/kube"
)

// client reads and writes one Lease. Each request has an answer, or an error,
// within a time limit.
type client struct {
	rest            *rest.RESTClient
	namespace, name string
	timeout         time.Duration
}

func newClient(o Options) (*client, error) {
	cfg := rest.CopyConfig(o.Kubernetes)
	// With HTTP/2 a renewal would share its connection with the watch, and a
	// request that got no answer would be repeated on the same dead connection
	// until a ping notices, which takes longer than a Lease lasts. With HTTP/1.1
	// a request that is given up closes its connection.
	cfg.NextProtos = []string{"http/1.1"}

	c, err := kube.NewClient(cfg, coordinationv1.SchemeGroupVersion, runtime.ContentTypeJSON, &coordinationv1.Lease{})
	if err != nil {
		return nil, err
	}
	// As in client-go's components: there is time for a second attempt.
	return &client{rest: c, namespace: o.Namespace, name: o.Name, timeout: o.RenewDeadline / 2}, nil
}

func (c *client) get(ctx context.Context) (*coordinationv1.Lease, error) {
	return c.do(ctx, "get", c.rest.Get().Name(c.name))
}

func (c *client) create(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return c.do(ctx, "create", c.rest.Post().Body(l))
}

// update succeeds only if the Lease is still that of l's resourceVersion.
func (c *client) update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return c.do(ctx, "update", c.rest.Put().Name(c.name).Body(l))
}

var errNoAnswer = errors.New("the API server does not answer")

func (c *client) do(ctx context.Context, verb string, r *rest.Request) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("%w within %v", errNoAnswer, c.timeout))
	defer cancel()
	l := &coordinationv1.Lease{}
	// MaxRetries(0): repeating is for the loops, where it is logged and bounded.
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

// mend says what has to be done about a denial.
func (c *client) mend(err error) string {
	if apierrors.IsUnauthorized(err) {
		return "the API server does not accept the credentials"
	}
	return fmt.Sprintf("grant get, create and update on leases in namespace %s with a Role and a RoleBinding there: apiGroups [coordination.k8s.io], resources [leases], verbs [get, create, update]", c.namespace)
}

// conflict reports whether the Lease was written, or made, by somebody else
// meanwhile.
func conflict(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
