package loki

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	// renewAfter is how long connections are kept, so that the load spreads
	// over servers that came later.
	renewAfter = 3 * time.Minute

	// cancelGrace is how long a push may take to end after its context has.
	cancelGrace = 100 * time.Millisecond

	// maxResponseBytes bounds what is read of an answer. Loki says a line for each
	// entry that it refuses.
	maxResponseBytes = 1 << 20
)

// client posts to one address. It is safe for concurrent use.
type client struct {
	url         *url.URL
	redactedURL string // the URL without what may be secret
	tenant      string
	timeout     time.Duration
	oauth2      bool
	build       func() (*http.Client, *connections, error)

	mu      sync.Mutex // guards what follows
	current *http.Client
	dialed  *connections // of current; nil without OAuth2
	since   time.Time
}

// response is what a server said to a push.
type response struct {
	status     int
	body       string
	truncated  bool // there was more of the body, or it could not be read
	html       bool
	location   string // of a redirect that was not followed
	retryAfter time.Duration
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newClient makes the HTTP client. Dial may be nil.
func newClient(c Config, u *url.URL, dial dialFunc) (*client, error) {
	settings := c.HTTP
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	target := *u
	if u.User != nil {
		// As a header it is in no URL that an error may quote.
		password, _ := u.User.Password()
		settings.BasicAuth = &config.BasicAuth{Username: u.User.Username(), Password: config.Secret(password)}
		target.User = nil
	}
	shown := url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path}
	options := []config.HTTPClientOption{config.WithUserAgent("hindsight"), config.WithIdleConnTimeout(renewAfter)}
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	cl := &client{
		url:         &target,
		redactedURL: shown.String(),
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
		follow := settings.FollowRedirects
		h.CheckRedirect = func(next *http.Request, via []*http.Request) error {
			// Most redirects turn a push into a GET, which a login page then
			// answers with 200.
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

// httpClient returns the client to use, a new one from time to time.
func (c *client) httpClient() (*http.Client, *connections) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.since) > renewAfter {
		c.replace()
	}
	return c.current, c.dialed
}

// discard lets go of the connections of a client that has failed, so that the name
// is resolved anew. Requests that use them go on.
func (c *client) discard(failed *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == failed {
		c.replace()
	}
}

// replace is called with mu held. Where a file that is needed cannot be read,
// the old client stays.
func (c *client) replace() {
	old := c.current
	if next, dialed, err := c.build(); err == nil {
		c.current, c.dialed = next, dialed
	}
	c.since = time.Now()
	// What is in use now is closed after its use: nobody asks this client for a
	// connection again.
	c.closeIdle(old)
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle(c.current)
}

// closeIdle leaves it to the idle timeout where tokens are fetched: that round
// tripper is not ready for being closed while it is used.
// https://github.com/prometheus/common/blob/v0.72.1/config/http_config.go (oauth2RoundTripper.CloseIdleConnections)
func (c *client) closeIdle(h *http.Client) {
	if !c.oauth2 {
		h.CloseIdleConnections()
	}
}

// errTimeout is what a push has met that was not answered in time.
var errTimeout = errors.New("no answer in time")

// post makes one attempt. An error means that there was no answer, and it is
// unknown whether the push was taken.
func (c *client) post(ctx context.Context, body []byte) (response, error) {
	within, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(within, http.MethodPost, c.url.String(), bytes.NewReader(body))
	if err != nil {
		return response{}, c.wrapError(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if c.tenant != "" {
		req.Header.Set("X-Scope-OrgID", c.tenant)
	}
	h, dialed := c.httpClient()
	a, err := c.doUntilDone(within, h, dialed, req)
	if ctx.Err() != nil && err != nil {
		return a, c.wrapError(ctx.Err())
	}
	if err != nil || a.status >= http.StatusInternalServerError {
		c.discard(h)
	}
	if err == nil {
		return a, nil
	}
	if context.Cause(within) == errTimeout {
		err = fmt.Errorf("%w (%v)", errTimeout, c.timeout)
	}
	return a, c.wrapError(err)
}

// attempt makes one attempt and says what came of it. Without an answer nothing is known
// of the push, and it has to be repeated. An error means that ctx has ended.
func (c *client) attempt(ctx context.Context, body []byte) (result, error) {
	a, err := c.post(ctx, body)
	switch {
	case err == nil:
		v := c.classify(a)
		v.timedOut = a.status == http.StatusGatewayTimeout || a.status == http.StatusRequestTimeout
		return v, nil
	case errors.Is(err, errTimeout), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return result{outcome: pushRetry, timedOut: true, err: &sink.Error{Reason: sink.ReasonTimeout, Err: err}}, nil
	case ctx.Err() != nil:
		return result{}, err
	default:
		return result{outcome: pushRetry, err: &sink.Error{Reason: sink.ReasonUnavailable, Err: err}}, nil
	}
}

// doUntilDone returns when ctx ends, even where the request does not: the round tripper
// for OAuth2 asks for a token without a deadline.
func (c *client) doUntilDone(ctx context.Context, h *http.Client, dialed *connections, req *http.Request) (response, error) {
	if dialed == nil {
		a, err := roundTrip(h, req)
		if a.truncated && ctx.Err() != nil {
			err = ctx.Err()
		}
		return a, err
	}
	type result struct {
		answer response
		err    error
	}
	done := make(chan result, 1)
	go func() {
		a, err := roundTrip(h, req)
		done <- result{a, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
	}
	// A push ends with its context. What goes on is the request for the token: it
	// keeps a connection, and others wait for it.
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

// wrapError says which push has failed.
func (c *client) wrapError(err error) error {
	return fmt.Errorf("push to %s: %w", c.redactedURL, mask.Error(err))
}

func readResponse(resp *http.Response) response {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	a := response{status: resp.StatusCode, truncated: err != nil, retryAfter: retryAfter(resp.Header, time.Now())}
	if len(body) > maxResponseBytes {
		body, a.truncated = body[:maxResponseBytes], true
	}
	a.body = string(body)
	a.html = isHTML(resp.Header.Get("Content-Type"))
	if resp.StatusCode/100 == 3 {
		if to, err := resp.Location(); err == nil {
			a.location = (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}).String()
		}
	}
	return a
}
