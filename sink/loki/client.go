package loki

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/internal/mask"
	"github.com/hindsight-events/hindsight/sink"
)

const (
	// renewAfter is the lifetime of connections, so that new servers get their share of
	// the load.
	renewAfter = 3 * time.Minute

	userAgent = "hindsight"

	// readBufferBytes is enough for the responses of Loki: one of 204 has 200 bytes.
	readBufferBytes = 1 << 10

	// cancelGrace is how long a push may take to end after its context.
	cancelGrace = 100 * time.Millisecond
)

// client pushes to one URL. It is safe for concurrent use.
type client struct {
	url         *url.URL
	redactedURL string // without credentials and query
	tenant      string
	timeout     time.Duration
	oauth2      bool
	build       func() (*http.Client, *connections, error)

	mu      sync.Mutex // guards the fields below
	current *http.Client
	dialed  *connections // of current; nil without OAuth2
	since   time.Time
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newClient returns a client. Dial may be nil.
func newClient(c Config, u *url.URL, dial dialFunc) (*client, error) {
	settings := c.HTTP
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	target := *u
	if u.User != nil {
		// Errors may quote the URL, but no header.
		password, _ := u.User.Password()
		settings.BasicAuth = &config.BasicAuth{Username: u.User.Username(), Password: config.Secret(password)}
		target.User = nil
	}
	redacted := url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path}
	options := []config.HTTPClientOption{config.WithIdleConnTimeout(renewAfter)}
	if settings.OAuth2 != nil {
		options = append(options, config.WithUserAgent(userAgent)) // for requests of a token, too
	}
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	cl := &client{
		url:         &target,
		redactedURL: redacted.String(),
		tenant:      c.TenantID,
		timeout:     time.Duration(c.Timeout),
		oauth2:      settings.OAuth2 != nil,
	}
	cl.build = func() (*http.Client, *connections, error) {
		dial := dial
		var dialed *connections
		if cl.oauth2 {
			dialed = newConnections(dial)
			dial = dialed.dial
		}
		h, err := config.NewClientFromConfig(settings, "hindsight", append(options, config.WithDialContextFunc(dial))...)
		if err != nil {
			return nil, nil, err
		}
		if t, ok := h.Transport.(*http.Transport); ok { // without credentials and files
			// The library's dialer records what each connection does, in 10 KB.
			t.DialContext = dial
			t.ReadBufferSize = readBufferBytes
		}
		follow := settings.FollowRedirects
		h.CheckRedirect = func(next *http.Request, via []*http.Request) error {
			// Most redirects turn a push into a GET, which a login page answers
			// with 200.
			if !follow || next.Method != http.MethodPost || next.URL.Host != target.Host || len(via) >= 3 {
				return http.ErrUseLastResponse
			}
			return nil
		}
		return h, dialed, nil
	}
	var err error
	if cl.current, cl.dialed, err = cl.build(); err != nil {
		return nil, err
	}
	cl.since = time.Now()
	return cl, nil
}

// httpClient returns the current HTTP client. It is replaced every renewAfter.
func (c *client) httpClient() (*http.Client, *connections) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.since) > renewAfter {
		c.replace()
	}
	return c.current, c.dialed
}

// discard replaces a client after a failure, so that the host name is resolved again. Requests in
// flight continue.
func (c *client) discard(failed *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == failed {
		c.replace()
	}
}

// replace builds a new HTTP client. If a file of the configuration cannot be read, the old client
// stays. c.mu is held.
func (c *client) replace() {
	old := c.current
	if next, dialed, err := c.build(); err == nil {
		c.current, c.dialed = next, dialed
	}
	c.since = time.Now()
	// Connections in use are closed after their request: no further request uses this
	// client.
	c.closeIdle(old)
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle(c.current)
}

// closeIdle closes idle connections. With OAuth2 the idle timeout closes them, since that round
// tripper does not support CloseIdleConnections during a request:
// https://github.com/prometheus/common/blob/v0.72.1/config/http_config.go (oauth2RoundTripper.CloseIdleConnections)
func (c *client) closeIdle(h *http.Client) {
	if !c.oauth2 {
		h.CloseIdleConnections()
	}
}

// errTimeout is the error of a push without a response within the timeout.
var errTimeout = errors.New("no response in time")

// attempt makes one attempt to push and returns its result. Without a response it is unknown
// whether the push was stored, and it has to be repeated. An error means that ctx is done.
func (c *client) attempt(ctx context.Context, body []byte) (result, error) {
	a, err := c.post(ctx, body)
	switch {
	case err == nil:
		r := c.classify(a)
		r.timedOut = a.status == http.StatusGatewayTimeout || a.status == http.StatusRequestTimeout
		return r, nil
	case errors.Is(err, errTimeout), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return result{outcome: pushRetry, timedOut: true, err: &sink.Error{Reason: sink.ReasonTimeout, Err: err}}, nil
	case ctx.Err() != nil:
		return result{}, err
	default:
		return result{outcome: pushRetry, err: &sink.Error{Reason: sink.ReasonUnavailable, Err: err}}, nil
	}
}

// post sends one request. An error means that there was no response.
func (c *client) post(ctx context.Context, body []byte) (response, error) {
	limited, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodPost, c.url.String(), bytes.NewReader(body))
	if err != nil {
		return response{}, c.wrapError(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", userAgent)
	if c.tenant != "" {
		req.Header.Set("X-Scope-OrgID", c.tenant)
	}
	h, dialed := c.httpClient()
	a, err := c.doUntilDone(limited, h, dialed, req)
	if ctx.Err() != nil && err != nil {
		return a, c.wrapError(ctx.Err())
	}
	if err != nil || a.status >= http.StatusInternalServerError {
		c.discard(h)
	}
	if err == nil {
		return a, nil
	}
	if errors.Is(context.Cause(limited), errTimeout) {
		err = fmt.Errorf("%w (%v)", errTimeout, c.timeout)
	}
	return a, c.wrapError(err)
}

// doUntilDone sends a request and returns when ctx is done, even if the request does not: the round
// tripper for OAuth2 requests a token without a deadline.
func (c *client) doUntilDone(ctx context.Context, h *http.Client, dialed *connections, req *http.Request) (response, error) {
	if dialed == nil {
		a, err := roundTrip(h, req)
		if a.truncated && ctx.Err() != nil {
			err = ctx.Err()
		}
		return a, err
	}
	type result struct {
		response response
		err      error
	}
	done := make(chan result, 1)
	go func() {
		a, err := roundTrip(h, req)
		done <- result{a, err}
	}()
	select {
	case r := <-done:
		return r.response, r.err
	case <-ctx.Done():
	}
	// A push ends with its context. A request for a token does not: it keeps a connection, and
	// other pushes wait for it.
	select {
	case <-done:
	case <-time.After(cancelGrace):
		c.discard(h)
		dialed.close()
	}
	return response{}, ctx.Err()
}

func roundTrip(h *http.Client, req *http.Request) (response, error) {
	resp, err := h.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	return readResponse(resp), nil
}

// wrapError adds the URL to an error and masks secrets in it.
func (c *client) wrapError(err error) error {
	return fmt.Errorf("push to %s: %w", c.redactedURL, mask.Error(err))
}
