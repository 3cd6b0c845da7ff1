// Package loki reads entries from Grafana Loki: any range of them, page by page
// and without holding more than a page, and new ones as they arrive.
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
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/internal/mask"
)

// Config of a Client.
type Config struct {
	// URL is that of Loki's API without /loki/api/v1. It may hold credentials.
	URL *url.URL

	TenantID string // sent as X-Scope-OrgID; empty: none
	HTTP     config.HTTPClientConfig

	// Timeout of one answer; zero: 2 minutes. Loki by itself gives up after one.
	Timeout time.Duration
}

// Client reads from one Loki. It is safe for concurrent use.
type Client struct {
	base    url.URL
	tenant  string
	timeout time.Duration
	http    *http.Client
	socket  *http.Client // for /tail
}

// New returns a client. It reads the files that the configuration names, and
// connects to nothing.
func New(c Config) (*Client, error) {
	if c.URL == nil {
		return nil, errors.New("the address of Loki is missing")
	}
	base, settings := *c.URL, c.HTTP
	if base.User != nil {
		// The URL's credentials override others. In a header they are in no URL that an error quotes.
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
	settings.EnableHTTP2 = false // has no Upgrade
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

// URL is Loki's address, without credentials.
func (c *Client) URL() string { return c.base.String() }

// Error is an answer that is no success.
type Error struct {
	URL        string // of Loki, without credentials
	Status     int
	Message    string        // what Loki says, on one line
	RetryAfter time.Duration // zero: not said
}

func (e *Error) Error() string {
	s := fmt.Sprintf("loki at %s answers %d", e.URL, e.Status)
	if e.Message != "" {
		s += ": " + e.Message
	}
	switch {
	case e.Status == http.StatusUnauthorized && strings.Contains(e.Message, "org id"):
		s += "; it has tenants: say which one is meant"
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		s += "; check credentials and tenant"
	case e.Status == http.StatusNotFound:
		s += "; the address must be the one in front of /loki/api/v1"
	}
	return s
}

// Streams returns the labels of the streams that match a stream selector and
// have entries in the range, which may be as long as Loki allows a query to be
// (30 days by default).
func (c *Client) Streams(ctx context.Context, selector string, from, to time.Time) (streams []map[string]string, err error) {
	query := span(from, to)
	query.Set("match[]", selector)
	if err := c.get(ctx, "series", query, &streams); err != nil {
		return nil, err
	}
	return streams, nil
}

// LabelValues returns the values that a label has in the streams that match a
// stream selector and have entries in the range.
func (c *Client) LabelValues(ctx context.Context, label, selector string, from, to time.Time) (values []string, err error) {
	query := span(from, to)
	query.Set("query", selector)
	if err := c.get(ctx, "label/"+url.PathEscape(label)+"/values", query, &values); err != nil {
		return nil, err
	}
	return values, nil
}

// Has reports whether a log query finds an entry from from to before to. It sends one request, with
// no retry.
func (c *Client) Has(ctx context.Context, query string, from, to time.Time) (bool, error) {
	entries, _, err := c.page(ctx, query, from, to, 1)
	return len(entries) > 0, err
}

func span(from, to time.Time) url.Values {
	return url.Values{"start": {nanos(from)}, "end": {nanos(to)}}
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// header asks for structured metadata apart from the stream's labels:
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

// ask returns an answer that is a success. The caller closes its body and calls
// cancel.
func (c *Client) ask(ctx context.Context, path string, query url.Values) (_ *http.Response, cancel func(), err error) {
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
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, c.unreachable(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, nil, c.refused(resp)
	}
	return resp, end, nil
}

// get decodes the data of an answer.
func (c *Client) get(ctx context.Context, path string, query url.Values, data any) error {
	resp, cancel, err := c.ask(ctx, path, query)
	if err != nil {
		return err
	}
	defer cancel()
	defer resp.Body.Close()
	answer := struct {
		Status string
		Data   any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		var bad *json.SyntaxError
		if errors.As(err, &bad) {
			return fmt.Errorf("%s does not answer as Loki does: %w", c.base.String(), err)
		}
		return fmt.Errorf("read the answer of loki at %s: %w", c.base.String(), err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s does not answer as Loki does: its status is %q", c.base.String(), answer.Status)
	}
	return nil
}

// unreachable leaves out of an error the long address of the request.
func (c *Client) unreachable(err error) error {
	return fmt.Errorf("query loki at %s: %w", c.base.String(), mask.Error(err))
}

func (c *Client) refused(resp *http.Response) error {
	const most = 500
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4*most))
	message := strings.Join(strings.FieldsFunc(string(body), func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if strings.HasPrefix(message, "<") {
		message = "" // a gateway's page
	}
	if len(message) > most {
		message = strings.ToValidUTF8(message[:most], "") + "…"
	}
	e := &Error{URL: c.base.String(), Status: resp.StatusCode, Message: message}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}

// Tenant names the tenant for a person.
func (c *Client) Tenant() string { return cmp.Or(c.tenant, "none given") }
