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
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// api is an API server with at most one Lease.
type api struct {
	*fakeapi.Server
	t *testing.T
}

func newAPI(t *testing.T) api { return api{fakeapi.New(t), t} }

func (a api) lease() *coordinationv1.Lease { return a.Lease("monitoring", "hindsight") }

func (a api) holder() string {
	if l := a.lease(); l != nil {
		return holderOf(l)
	}
	return ""
}

func (a api) wantCheckpoint(t *testing.T, want Checkpoint) {
	t.Helper()
	got, err := decode(a.lease().Annotations[annotation])
	if err != nil {
		t.Fatal(err)
	}
	wantCheckpoint(t, got, want)
}

// change is a write by another client.
func (a api) change(f func(*coordinationv1.Lease)) { a.UpdateLease("monitoring", "hindsight", f) }

func (a api) remove() { a.DeleteLease("monitoring", "hindsight") }

// create creates the Lease as another client does.
func (a api) create(l *coordinationv1.Lease) {
	a.t.Helper()
	c, err := newClient(Options{Kubernetes: a.Config(), Namespace: "monitoring", Name: "hindsight", RenewDeadline: time.Minute})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := c.create(a.t.Context(), l); err != nil {
		a.t.Fatal(err)
	}
}

// wire is a replica's connection to the API server. It is safe for concurrent use.
type wire struct {
	next http.RoundTripper

	mu           sync.Mutex
	fault        fault
	dropResponse func(*http.Request) bool
	requests     []string // "METHOD path"
}

// fault may answer a request instead of the API server. With neither a response nor an error, the
// server answers.
type fault func(*http.Request) (*http.Response, error)

// setFault applies a fault to all following requests; nil ends it.
func (w *wire) setFault(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, r.Method+" "+r.URL.Path)
	fault, drop := w.fault, w.dropResponse
	w.mu.Unlock()
	if fault != nil {
		if response, err := fault(r); response != nil || err != nil {
			return response, err
		}
	}
	response, err := w.next.RoundTrip(r)
	if err == nil && drop != nil && drop(r) {
		response.Body.Close()
		return hang(r)
	}
	return response, err
}

// methods returns the methods of the requests, separated by spaces.
func (w *wire) methods() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var methods []string
	for _, r := range w.requests {
		method, _, _ := strings.Cut(r, " ")
		methods = append(methods, method)
	}
	return strings.Join(methods, " ")
}

func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func refuse(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func forbid(r *http.Request) (*http.Response, error) {
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch"}[r.Method]
	return respond(r, http.StatusForbidden,
		fmt.Sprintf(`leases.coordination.k8s.io "hindsight" is forbidden: User "x" cannot %s resource "leases" in API group "coordination.k8s.io" in the namespace "monitoring"`, verb))
}

func fail(r *http.Request) (*http.Response, error) {
	return respond(r, http.StatusInternalServerError, "etcd is down")
}

func respond(r *http.Request, code int, message string) (*http.Response, error) {
	status := fakeapi.Status(code, message)
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	b, err := json.Marshal(status)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(b)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, err
}

// replica is a candidate with its log.
type replica struct {
	*Lease
	wire *wire
	log  *syncBuffer

	mu         sync.Mutex // guards the following
	led        bool
	found      Checkpoint        // in the Lease, when it was acquired
	stopped    time.Time         // when the context of lead ended
	cause      error             // of that
	drain      time.Duration     // how long lead continues afterwards
	checkpoint func() Checkpoint // for SetCheckpoint

	stop context.CancelFunc
	done chan struct{}
	err  error // of Run, once done is closed
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

func (a api) replica(t *testing.T, identity string, options ...func(*Options)) *replica {
	t.Helper()
	config := a.Config()
	r := &replica{wire: &wire{next: config.Transport}, log: &syncBuffer{}, done: make(chan struct{})}
	config.Transport = r.wire
	o := Options{
		Kubernetes: config,
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

// start calls Run, which is stopped at the end of the test.
func (r *replica) start(t *testing.T) *replica {
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() {
		defer close(r.done)
		r.err = r.Run(ctx, r.lead)
	}()
	t.Cleanup(func() { stop(); <-r.done })
	return r
}

func (r *replica) lead(ctx context.Context, found Checkpoint) error {
	r.mu.Lock()
	r.led, r.found = true, found
	if r.checkpoint != nil {
		r.SetCheckpoint(r.checkpoint)
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.stopped, r.cause = time.Now(), context.Cause(ctx)
	drain := r.drain
	r.mu.Unlock()
	time.Sleep(drain)
	return nil
}

// hasLed reports whether the replica has ever been the leader.
func (r *replica) hasLed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.led
}

func (r *replica) wantHasLed(t *testing.T, want bool) {
	t.Helper()
	if r.hasLed() != want {
		t.Fatalf("%s has led: %t, want %t; its log:\n%s", r.Identity, r.hasLed(), want, r.log)
	}
}

func (r *replica) wantFound(t *testing.T, want Checkpoint) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	wantCheckpoint(t, r.found, want)
}

func wantCheckpoint(t *testing.T, got, want Checkpoint) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("checkpoint %+v, want %+v", got, want)
	}
}

// at is a checkpoint of one sink.
func at(version uint64) Checkpoint {
	return Checkpoint{Sinks: map[string]map[string]event.Position{"loki": {"": {
		Epoch: event.Epoch{Cluster: "uid-a"}, Version: version, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}}}}
}

func always(c Checkpoint) func() Checkpoint { return func() Checkpoint { return c } }
