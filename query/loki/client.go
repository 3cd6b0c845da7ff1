// Package loki is the client that reads entries from Grafana Loki: any time range, page by page
// (Range), and new entries as they arrive (Tail). Package sink/loki writes them.
package loki

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/internal/excerpt"
	"github.com/hindsight-events/hindsight/internal/mask"
)

// Config of a Client.
type Config struct {
	// URL of Loki's API without /loki/api/v1. Its credentials, if any, override the ones in HTTP.
	URL *url.URL

	TenantID string // sent as X-Scope-OrgID; empty: not sent
	HTTP     config.HTTPClientConfig

	// Timeout of each request; zero: 2 minutes. Loki's own query timeout is one minute.
	Timeout time.Duration
}

// Client reads from one Loki. It is safe for concurrent use.
type Client struct {
	base    url.URL // without credentials
	tenant  string
	timeout time.Duration
	http    *http.Client
	socket  *http.Client // for /tail, without HTTP/2

	bytes, requests atomic.Int64
}

// New returns a client. It reads the files that the configuration names and sends no request.
func New(c Config) (*Client, error) {
	if c.URL == nil {
		return nil, errors.New("loki: the URL is missing")
	}
	base, settings := *c.URL, c.HTTP
	if base.User != nil {
		// Sent as a header, credentials are in no URL that an error quotes.
		password, _ := base.User.Password()
		settings.BasicAuth = &config.BasicAuth{Username: base.User.Username(), Password: config.Secret(password)}
		settings.Authorization, settings.OAuth2, settings.BearerToken, settings.BearerTokenFile = nil, nil, "", ""
		base.User = nil
	}
	base.RawQuery, base.Fragment = "", ""
	if err := settings.Validate(); err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	h, err := config.NewClientFromConfig(settings, "hindsight", config.WithUserAgent("hindsight"))
	if err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	settings.EnableHTTP2 = false // a websocket needs Upgrade, which HTTP/2 does not have
	socket, err := config.NewClientFromConfig(settings, "hindsight", config.WithUserAgent("hindsight"))
	if err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	return &Client{
		base:    base,
		tenant:  c.TenantID,
		timeout: cmp.Or(c.Timeout, 2*time.Minute),
		http:    h,
		socket:  socket,
	}, nil
}

// URL returns Loki's address without credentials.
func (c *Client) URL() string { return c.base.String() }

// Tenant describes the tenant in messages to the user.
func (c *Client) Tenant() string { return cmp.Or(c.tenant, "none") }

// Fetched returns the number of bytes read from responses, decompressed, and of requests sent, retries
// included. It does not count Tail.
func (c *Client) Fetched() (bytes int64, requests int) {
	return c.bytes.Load(), int(c.requests.Load())
}

// countingBody counts the bytes read from a response.
type countingBody struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (b countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// Error is a response with a status other than 200.
type Error struct {
	URL        string // of Loki, without credentials
	Status     int
	Message    string        // of the response, on one line
	RetryAfter time.Duration // zero: not set
}

func (e *Error) Error() string {
	s := fmt.Sprintf("loki at %s responded %d", e.URL, e.Status)
	if e.Message != "" {
		s += ": " + e.Message
	}
	switch {
	case e.Status == http.StatusUnauthorized && strings.Contains(e.Message, "org id"):
		s += "; it is multi-tenant: name a tenant"
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		s += "; check credentials and tenant"
	case e.Status == http.StatusNotFound:
		s += "; the URL must not include /loki/api/v1"
	}
	return s
}

// Has reports whether a log query finds an entry from from to before to. It sends one request and
// does not retry.
func (c *Client) Has(ctx context.Context, query string, from, to time.Time) (bool, error) {
	entries, _, err := c.queryPage(ctx, query, from, to, 1)
	return len(entries) > 0, err
}

// Streams returns the labels of the streams that match a stream selector and have entries in the
// range, which must not exceed Loki's max_query_length (30 days by default).
func (c *Client) Streams(ctx context.Context, selector string, from, to time.Time) (streams []map[string]string, err error) {
	query := rangeParams(from, to)
	query.Set("match[]", selector)
	err = c.getData(ctx, "series", query, &streams)
	return streams, err
}

// LabelValues returns the values of a label in the streams that match a stream selector and have
// entries in the range.
func (c *Client) LabelValues(ctx context.Context, label, selector string, from, to time.Time) (values []string, err error) {
	query := rangeParams(from, to)
	query.Set("query", selector)
	err = c.getData(ctx, "label/"+url.PathEscape(label)+"/values", query, &values)
	return values, err
}

func rangeParams(from, to time.Time) url.Values {
	return url.Values{"start": {nanos(from)}, "end": {nanos(to)}}
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// header requests structured metadata separate from the labels of the stream:
// https://grafana.com/docs/loki/latest/reference/loki-http-api/
func (c *Client) header() http.Header {
	h := http.Header{"X-Loki-Response-Encoding-Flags": {"categorize-labels"}}
	if c.tenant != "" {
		h.Set("X-Scope-OrgID", c.tenant)
	}
	return h
}

func (c *Client) endpoint(path string, query url.Values) *url.URL {
	u := c.base.JoinPath("/loki/api/v1", path)
	u.RawQuery = query.Encode()
	return u
}

// get returns a response with status 200. The caller closes its body and calls cancel.
func (c *Client) get(ctx context.Context, path string, query url.Values) (_ *http.Response, cancel func(), err error) {
	ctx, end := context.WithTimeout(ctx, c.timeout)
	defer func() {
		if err != nil {
			end()
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint(path, query).String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("query loki: %w", err)
	}
	req.Header = c.header()
	c.requests.Add(1)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, c.requestError(err)
	}
	resp.Body = countingBody{resp.Body, &c.bytes}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, nil, c.responseError(resp)
	}
	return resp, end, nil
}

// getData decodes the data of a response.
func (c *Client) getData(ctx context.Context, path string, query url.Values, data any) error {
	resp, cancel, err := c.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer cancel()
	defer resp.Body.Close()
	body := struct {
		Status string
		Data   any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return c.formatError(err)
		}
		return c.readError(err)
	}
	if body.Status != "success" {
		return c.formatError(statusError(body.Status))
	}
	return nil
}

// requestError omits the URL of the request, which is long.
func (c *Client) requestError(err error) error {
	return fmt.Errorf("query loki at %s: %w", c.base.String(), mask.Error(err))
}

func (c *Client) readError(err error) error {
	return fmt.Errorf("read the response of loki at %s: %w", c.base.String(), err)
}

func (c *Client) formatError(err error) error {
	return fmt.Errorf("the response of %s is not Loki's: %w", c.base.String(), err)
}

func statusError(status string) error { return fmt.Errorf("its status is %q", status) }

// responseError returns the Error of a response.
func (c *Client) responseError(resp *http.Response) error {
	const maxMessage = 500
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4*maxMessage))
	message := excerpt.Line(body, maxMessage)
	if strings.HasPrefix(message, "<") {
		message = "" // a page of a gateway
	}
	e := &Error{URL: c.base.String(), Status: resp.StatusCode, Message: message}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
