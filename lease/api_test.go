package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/event"
)

const leasePath = "/apis/coordination.k8s.io/v1/namespaces/monitoring/leases"

// api is an API server that keeps one Lease, with the API's rules about
// versions. It answers in no time.
type api struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	uids    int
	writes  int
}

// serve answers a request.
func (a *api) serve(method, path string, body *coordinationv1.Lease) (int, any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one := path == leasePath+"/hindsight"
	switch {
	case method == http.MethodPost && path == leasePath && a.lease != nil:
		return failure(http.StatusConflict, metav1.StatusReasonAlreadyExists, `leases "hindsight" already exists`)
	case method == http.MethodPost && path == leasePath && body.ResourceVersion != "":
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, "resourceVersion should not be set on objects to be created")
	case method == http.MethodPost && path == leasePath:
		a.uids++
		body.UID = types.UID("uid-" + strconv.Itoa(a.uids))
		return a.store(http.StatusCreated, body)
	case !one:
		return failure(http.StatusNotFound, metav1.StatusReasonNotFound, "no such path")
	case a.lease == nil && method == http.MethodPut:
		return failure(http.StatusConflict, metav1.StatusReasonConflict, "the UID in the precondition is not that of the object, which has none")
	case a.lease == nil:
		return failure(http.StatusNotFound, metav1.StatusReasonNotFound, `leases "hindsight" not found`)
	case method == http.MethodGet:
		return http.StatusOK, a.lease
	case method == http.MethodPut && (body.UID != a.lease.UID || body.ResourceVersion != a.lease.ResourceVersion):
		return failure(http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified")
	case method == http.MethodPut:
		return a.store(http.StatusOK, body)
	default:
		return failure(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "no such verb")
	}
}

func (a *api) store(code int, l *coordinationv1.Lease) (int, any) {
	a.version++
	a.writes++
	l.ResourceVersion = strconv.Itoa(a.version)
	a.lease = l
	return code, l
}

// change is a write of somebody else.
func (a *api) change(f func(*coordinationv1.Lease)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lease.DeepCopy()
	f(l)
	a.store(0, l)
}

func (a *api) remove() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lease = nil
}

// holder is who holds the Lease; empty: nobody, or there is none.
func (a *api) holder() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease == nil {
		return ""
	}
	return holderOf(a.lease)
}

func (a *api) says(t *testing.T) Checkpoint {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	held, err := decode(a.lease.Annotations[annotation])
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func failure(code int, reason metav1.StatusReason, message string) (int, any) {
	return code, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}
}

// wire is what is between a candidate and the API server. It is safe for
// concurrent use.
type wire struct {
	api *api

	mu       sync.Mutex
	fault    func(*http.Request) error // before the server sees the request
	swallow  func(*http.Request) bool  // the answer
	requests []string                  // "METHOD path"
}

func (w *wire) set(f func(*wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// breakWith makes every request end with a fault; nil mends it.
func (w *wire) breakWith(fault func(*http.Request) error) { w.set(func(w *wire) { w.fault = fault }) }

func hang(r *http.Request) error {
	<-r.Context().Done()
	return r.Context().Err()
}

func refuse(*http.Request) error { return errors.New("connection refused") }

func forbid(r *http.Request) error {
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update"}[r.Method]
	_, s := failure(http.StatusForbidden, metav1.StatusReasonForbidden,
		fmt.Sprintf(`leases.coordination.k8s.io "hindsight" is forbidden: User "x" cannot %s resource "leases" in API group "coordination.k8s.io" in the namespace "monitoring"`, verb))
	return answer{http.StatusForbidden, s}
}

// answer is a fault that is an answer.
type answer struct {
	code int
	body any
}

func (answer) Error() string { return "answer" }

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, r.Method+" "+r.URL.Path)
	fault, swallow := w.fault, w.swallow
	w.mu.Unlock()
	if fault != nil {
		err := fault(r)
		var a answer
		if errors.As(err, &a) {
			return respond(r, a.code, a.body)
		}
		if err != nil {
			return nil, err
		}
	}
	body := &coordinationv1.Lease{}
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(body); err != nil {
			return nil, err
		}
	}
	code, result := w.api.serve(r.Method, r.URL.Path, body)
	if swallow != nil && swallow(r) {
		return nil, hang(r)
	}
	return respond(r, code, result)
}

func respond(r *http.Request, code int, body any) (*http.Response, error) {
	if l, ok := body.(*coordinationv1.Lease); ok {
		l = l.DeepCopy()
		l.TypeMeta = metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"}
		body = l
	}
	b, err := json.Marshal(body)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(b)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, err
}

// replica is a candidate in a test.
type replica struct {
	*Lease
	wire *wire
	log  *syncBuffer

	mu     sync.Mutex // guards the following
	led    bool
	held   Checkpoint    // what it was given
	lost   time.Time     // when the context of lead ended
	cause  error         // why
	drains time.Duration // how long lead goes on after that
	keeps  func() Checkpoint

	stop  context.CancelFunc
	done  chan struct{}
	error error // of Run, once done is closed
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (a *api) replica(t *testing.T, identity string, options ...func(*Options)) *replica {
	t.Helper()
	r := &replica{wire: &wire{api: a}, log: &syncBuffer{}, done: make(chan struct{})}
	o := Options{
		Kubernetes: &rest.Config{Host: "http://api", Transport: r.wire},
		Namespace:  "monitoring", Name: "hindsight", Identity: identity,
		Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	for _, option := range options {
		option(&o)
	}
	var err error
	if r.Lease, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

// start lets the replica campaign until the test ends.
func (r *replica) start(t *testing.T) *replica {
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() {
		defer close(r.done)
		r.error = r.Run(ctx, r.lead)
	}()
	t.Cleanup(func() { stop(); <-r.done })
	return r
}

func (r *replica) lead(ctx context.Context, held Checkpoint) error {
	r.mu.Lock()
	r.led, r.held = true, held
	if r.keeps != nil {
		r.SetCheckpoint(r.keeps)
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.lost, r.cause = time.Now(), context.Cause(ctx)
	drains := r.drains
	r.mu.Unlock()
	time.Sleep(drains)
	return nil
}

// leads reports whether the replica has begun to lead, ever.
func (r *replica) leads() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.led
}

func (r *replica) given() Checkpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

// at is the position of one sink.
func at(version uint64) Checkpoint {
	return Checkpoint{Sinks: map[string]map[string]event.Position{"loki": {"": {
		Epoch: event.Epoch{Cluster: "uid-a"}, Version: version, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}}}}
}

func always(h Checkpoint) func() Checkpoint { return func() Checkpoint { return h } }
