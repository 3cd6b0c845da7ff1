package loki

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/internal/excerpt"
	"github.com/hindsight-events/hindsight/sink"
)

// maxResponseBytes bounds how much of a response is read. Loki writes a line for each of many
// rejected entries.
const maxResponseBytes = 1 << 20

// response is the response to a push.
type response struct {
	status     int
	body       string
	truncated  bool // the body is longer, or could not be read completely
	html       bool
	location   string // of a redirect that was not followed
	retryAfter time.Duration
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

// outcome is the meaning of a response for the entries of a push.
type outcome int

const (
	// pushAccepted: all entries are stored.
	pushAccepted outcome = iota
	// pushRetry: no entry is known to be stored, and all may be accepted later, perhaps
	// after a change of the configuration.
	pushRetry
	// pushRetrySmaller is pushRetry for a push that is more likely to succeed if it is
	// smaller.
	pushRetrySmaller
	// pushTooLarge: no entry is stored, and a push of this size never will be.
	pushTooLarge
	// pushRejected: no entry is stored, because of one of them or because of the
	// destination.
	pushRejected
	// pushPartlyRejected: the response names rejected entries; the others are stored.
	pushPartlyRejected
)

// result is the result of a push.
type result struct {
	outcome   outcome
	timedOut  bool        // a smaller push may be fast enough
	status    int         // 0: there was no response
	err       *sink.Error // unless the push was accepted
	rejection rejection   // if it was partly rejected
}

// classify returns the meaning of a response. A push that is not known to be stored counts as not
// stored.
//
// Loki creates its responses in pkg/distributor/http.go, pkg/distributor/distributor.go
// (PushWithResolver) and pkg/ingester/stream.go (Push) of
// https://github.com/grafana/loki/tree/v3.7.8; gateways add others. The messages are those of
// Loki 2.9 to 3.7. They identify single entries and select hints. Whether a failure concerns a
// stream or the destination does not depend on them.
func (c *client) classify(a response) result {
	message := fmt.Sprintf("push to %s: %d", c.redactedURL, a.status)
	if text := http.StatusText(a.status); text != "" {
		message += " " + text
	}
	if body := excerpt.Line(a.body, 300); body != "" && !a.html {
		message += ": " + body
	}
	is := func(o outcome, reason, hint string) result {
		e := &sink.Error{Reason: reason, RetryAfter: a.retryAfter}
		if hint != "" {
			hint = "; " + hint
		}
		e.Err = fmt.Errorf("%s%s", message, hint)
		return result{outcome: o, status: a.status, err: e}
	}
	body := blankQuoted(a.body)
	lower := strings.ToLower(body) // older versions begin messages with a capital letter

	switch {
	// Loki can be configured to use any status for this. The default, 260, is a 2xx.
	case a.status == 260, strings.HasPrefix(lower, "ingestion blocked for user"):
		return is(pushRetry, sink.ReasonBlocked, "Loki accepts no pushes of this tenant: see block_ingestion_until in its limits")

	case a.status == http.StatusOK && a.html:
		return is(pushRetry, sink.ReasonNotFound, "this is a web page, not Loki; check the url")
	case a.status == http.StatusOK, a.status == http.StatusNoContent:
		return result{outcome: pushAccepted}
	case a.location != "":
		return is(pushRetry, sink.ReasonNotFound, "it redirects to "+a.location+"; if Loki is there, set the url to it")

	case a.status == http.StatusUnauthorized && strings.Contains(lower, "no org id"):
		return is(pushRetry, sink.ReasonUnauthorized, "Loki requires a tenant: set tenant_id")
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden, a.status == http.StatusProxyAuthRequired:
		return is(pushRetry, sink.ReasonUnauthorized, "check the credentials and tenant_id")
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed, a.status == http.StatusGone, a.status/100 == 3:
		return is(pushRetry, sink.ReasonNotFound, "check the path of the url: Loki accepts pushes at "+pushPath)
	case a.status == http.StatusBadRequest && strings.Contains(lower, "http request") && strings.Contains(lower, "https"):
		return is(pushRetry, sink.ReasonNotFound, "begin the url with https://")

	case a.status == http.StatusRequestEntityTooLarge,
		a.status == http.StatusInternalServerError && strings.Contains(lower, "resourceexhausted"):
		return is(pushTooLarge, sink.ReasonRejected, "")

	case a.status == http.StatusTooManyRequests:
		return classifyTooManyRequests(a, body, is)
	case a.status == http.StatusBadRequest:
		return classifyBadRequest(a, body, is)
	case a.status == http.StatusUnprocessableEntity, a.status == http.StatusInternalServerError:
		return is(pushRejected, sink.ReasonRejected, "")
	default:
		return is(pushRetry, sink.ReasonUnavailable, "")
	}
}

// classifyTooManyRequests classifies a 429. Unless the rate of the tenant is exceeded, Loki returns
// it for a single stream.
func classifyTooManyRequests(a response, body string, is func(outcome, string, string) result) result {
	lower := strings.ToLower(body)
	var r result
	rejection, ok := parseRejection(body)
	switch {
	case ok && !a.truncated:
		r = is(pushPartlyRejected, sink.ReasonRateLimited, "")
		r.rejection = rejection
	case strings.Contains(lower, "maximum active stream limit exceeded"):
		r = is(pushRetry, sink.ReasonStreamLimit, "")
	case strings.Contains(lower, "per stream rate limit exceeded"):
		r = is(pushRetrySmaller, sink.ReasonRateLimited, "")
	default:
		return is(pushRetrySmaller, sink.ReasonRateLimited, "")
	}
	r.err.StreamOnly = true
	return r
}

// classifyBadRequest classifies a 400.
func classifyBadRequest(a response, body string, is func(outcome, string, string) result) result {
	if labelsRejected().MatchString(body) {
		r := is(pushRetry, sink.ReasonRejected, "Loki accepts nothing of this stream: its labels exceed the limits of the tenant")
		r.err.StreamOnly = true
		return r
	}
	rejection, ok := parseRejection(body)
	if !ok || a.truncated {
		return is(pushRejected, sink.ReasonRejected, "")
	}
	hint := ""
	if rejection.metadataDisallowed > 0 {
		hint = "this Loki accepts no structured metadata: set structured_metadata: false, or allow_structured_metadata in its limits"
	}
	r := is(pushPartlyRejected, sink.ReasonRejected, hint)
	r.rejection = rejection
	return r
}

// retryAfter returns the delay of a Retry-After header, in seconds or as a date, up to an hour.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), time.Hour)
}

func isHTML(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "text/html"
}
