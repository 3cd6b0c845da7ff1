package watch

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"github.com/hindsight-events/hindsight/internal/kube"
)

// NewClient returns a client for watching Events. cfg has address and credentials; all other
// settings of requests are made here.
//
// The client has no types: this package decodes Events itself.
func NewClient(cfg *rest.Config) (*rest.RESTClient, error) {
	cfg = rest.CopyConfig(cfg)
	// Compression costs the API server, and Hindsight, more CPU than decoding the Events.
	cfg.DisableCompression = true
	dial := cfg.Dial
	if dial == nil {
		// The default of client-go.
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	pacing := &pacing{dial: dial}
	dialer := connrotation.NewDialer(pacing.dialContext)
	cfg.Dial = dialer.DialContext
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return transport{next, dialer.ConnectionTracker, pacing}
	})
	return kube.NewClient(cfg, corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf)
}

// Timeouts of responses. The API server ends a list after a minute (--request-timeout) with an
// error, which shall arrive first.
const (
	listHeaderTimeout = 75 * time.Second // for the headers of a list
	headerTimeout     = 30 * time.Second // for the headers of other responses
	bodyReadTimeout   = 30 * time.Second // for one read of a body, except for watches
)

// transport closes all connections once a response is late. HTTP/2 sends all requests over
// one connection and keeps it as long as pings are answered, which a proxy does even if the API
// server behind it is unreachable.
type transport struct {
	next        http.RoundTripper
	connections *connrotation.ConnectionTracker
	pacing      *pacing // of the connections
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil && errors.Is(context.Cause(req.Context()), errResponseTimeout) {
		t.connections.CloseAll()
	}
	if err == nil {
		setClock(req, resp)
	}
	return resp, err
}

func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// transportOf returns the transport of a client, if it is from NewClient.
func transportOf(client *rest.RESTClient) (transport, bool) {
	rt := client.Client.Transport
	for rt != nil {
		if t, ok := rt.(transport); ok {
			return t, true
		}
		wrapper, ok := rt.(utilnet.RoundTripperWrapper)
		if !ok {
			break
		}
		rt = wrapper.WrappedRoundTripper()
	}
	return transport{}, false
}

// closeConnections closes all connections of a client from NewClient.
func closeConnections(client *rest.RESTClient) {
	if t, ok := transportOf(client); ok {
		t.connections.CloseAll()
	}
}

// open sends a request and returns the body of the response. A status other than 2xx is an
// error, if possible an apierrors.APIStatus. It is also an error, errResponseTimeout, if the
// headers take longer than the timeout headers, or a read of the body longer than read (0: no
// timeout). If ctx is done, errors are its cause.
func open(ctx context.Context, req *rest.Request, headers, read time.Duration) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(headers, func() { cancel(errResponseTimeout) })
	// MaxRetries(0): the loop retries, observes Retry-After and logs it.
	stream, err := req.MaxRetries(0).Stream(ctx)
	timer.Stop()
	if ctx.Err() != nil && err == nil {
		_ = stream.Close()
		err = ctx.Err()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		cancel(nil)
		return nil, err
	}
	return &body{stream: stream, ctx: ctx, cancel: cancel, timer: timer, read: read}, nil
}

// body is the body of a response, with a timeout for each read.
type body struct {
	stream io.ReadCloser
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	timer  *time.Timer // cancels the request
	read   time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	if b.read > 0 {
		b.timer.Reset(b.read)
		defer b.timer.Stop()
	}
	n, err := b.stream.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil { //nolint:errorlint // a wrapped io.EOF is an error of the connection
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.cancel(nil)
	return b.stream.Close()
}
