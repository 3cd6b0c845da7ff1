package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// NewClient returns a client made for watching Events and nothing else. cfg
// says where the API server is and who asks; whatever concerns how requests
// are made is set here.
//
// Its scheme knows the API's own types alone (Status among them): Events are
// decoded by this package, and k8s.io/client-go/kubernetes/scheme, which
// registers every API group there is, costs several MB.
func NewClient(cfg *rest.Config) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)

	cfg = rest.CopyConfig(cfg)
	cfg.APIPath = "/api"
	cfg.GroupVersion = &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.WarningHandlerWithContext = nil
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	// The default of 5 requests a second makes a long list crawl. What paces the
	// requests here is our own backoff and the server's Retry-After.
	cfg.QPS = -1
	cfg.RateLimiter = nil
	// It would cut off every watch. Each request has deadlines of its own.
	cfg.Timeout = 0
	// Compressing costs the server, and decompressing us, more CPU than decoding
	// the Events does.
	cfg.DisableCompression = true

	dial := cfg.Dial
	if dial == nil {
		// As client-go does by itself.
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	dialer := connrotation.NewDialer(dial)
	cfg.Dial = dialer.DialContext
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return closeOnTimeout{next, dialer.ConnectionTracker}
	})

	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("create client for %s: %w", cfg.Host, err)
	}
	return client, nil
}

// How long an API server may take. It gives up on a list itself after a minute
// (--request-timeout) and says so; its answer should reach us first.
const (
	listHeaderTimeout = 75 * time.Second // until the headers of a list
	headerTimeout     = 30 * time.Second // until the headers of anything else
	bodyReadTimeout   = 30 * time.Second // between two reads of a body, a watch's excepted
)

var errNoAnswer = errors.New("the API server accepted the request and does not answer")

// closeOnTimeout closes all connections once a request was not answered in time. HTTP/2
// sends every request over one connection and keeps it as long as pings are
// answered, which something between us and the API server may do with nothing
// behind it.
type closeOnTimeout struct {
	next        http.RoundTripper
	connections *connrotation.ConnectionTracker
}

func (l closeOnTimeout) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil && errors.Is(context.Cause(req.Context()), errNoAnswer) {
		l.connections.CloseAll()
	}
	if err == nil {
		setClock(req, resp)
	}
	return resp, err
}

func (l closeOnTimeout) WrappedRoundTripper() http.RoundTripper { return l.next }

// closeConnections closes all connections of a client of NewClient.
func closeConnections(client *rest.RESTClient) {
	rt := client.Client.Transport
	for rt != nil {
		if l, ok := rt.(closeOnTimeout); ok {
			l.connections.CloseAll()
			return
		}
		wrapper, ok := rt.(utilnet.RoundTripperWrapper)
		if !ok {
			return
		}
		rt = wrapper.WrappedRoundTripper()
	}
}

// open sends a request and returns the body of its answer; an answer other
// than 2xx is an error, where possible an apierrors.APIStatus. Headers have to
// come within answer, and then something every quiet (0: whenever), or the
// request has failed with errNoAnswer. If ctx ends, errors are its cause.
func open(ctx context.Context, req *rest.Request, answer, quiet time.Duration) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(answer, func() { cancel(errNoAnswer) })
	// MaxRetries(0): retrying, and heeding Retry-After, is for the loop, where it
	// is logged and seen.
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
	return &body{stream: stream, ctx: ctx, cancel: cancel, timer: timer, quiet: quiet}, nil
}

// body is the body of an answer that may not stay silent for too long.
type body struct {
	stream io.ReadCloser
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	timer  *time.Timer // ends the request
	quiet  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	if b.quiet > 0 {
		b.timer.Reset(b.quiet)
		defer b.timer.Stop()
	}
	n, err := b.stream.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.cancel(nil)
	return b.stream.Close()
}
