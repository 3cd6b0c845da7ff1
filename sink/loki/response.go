package loki

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/sink"
)

// outcome is what an answer means for the entries of a push.
type outcome int

const (
	// stored: all of them are stored.
	pushAccepted outcome = iota
	// later: none is known to be stored, and all may be after a while, or after
	// somebody has mended something.
	pushRetry
	// busy: as later, but a smaller push may pass sooner.
	pushRetrySmaller
	// tooLarge: none is stored, and none will be in a push of this size.
	pushTooLarge
	// refused: none is stored. Either one of them is to blame, or the
	// destination.
	pushRejected
	// partly: some are refused, by name; the others are stored.
	pushPartlyRejected
)

// result is an answer, understood.
type result struct {
	outcome   outcome
	timedOut  bool        // it took its time, and a smaller push may not
	status    int         // 0: there was no answer
	err       *sink.Error // unless stored
	rejection rejection   // if partly
}

// classify says what an answer means. A push that is not known to be stored
// is not stored.
//
// Loki's own answers are made in pkg/distributor/http.go, pkg/distributor/
// distributor.go (PushWithResolver) and pkg/ingester/stream.go (Push) of
// https://github.com/grafana/loki/tree/v3.7.8; gateways add their own. Wordings are
// those of Loki 2.9 to 3.7. Only what names single entries, and hints, depend on
// them: whether a failure is the stream's or the destination's does not.
func (c *client) classify(a response) result {
	said := fmt.Sprintf("push to %s: %d", c.redactedURL, a.status)
	if text := http.StatusText(a.status); text != "" {
		said += " " + text
	}
	if body := excerpt(a.body, 300); body != "" && !a.html {
		said += ": " + body
	}
	is := func(o outcome, reason, advice string) result {
		e := &sink.Error{Reason: reason, RetryAfter: a.retryAfter}
		if advice != "" {
			advice = "; " + advice
		}
		e.Err = fmt.Errorf("%s%s", said, advice)
		return result{outcome: o, status: a.status, err: e}
	}
	body := blankQuoted(a.body)
	lower := strings.ToLower(body) // the same words begin with a capital in older versions

	switch {
	// Any status can be configured for this, 260 among them, which is a 2xx.
	case a.status == 260, strings.HasPrefix(lower, "ingestion blocked for user"):
		return is(pushRetry, sink.ReasonBlocked, "Loki takes nothing from this tenant for now: see block_ingestion_until in its limits")

	case a.status == http.StatusOK && a.html:
		return is(pushRetry, sink.ReasonNotFound, "this is a web page, not Loki; check the url")
	case a.status == http.StatusOK, a.status == http.StatusNoContent:
		return result{outcome: pushAccepted}
	case a.location != "":
		return is(pushRetry, sink.ReasonNotFound, "it redirects to "+a.location+"; if Loki is there, set the url to it")

	case a.status == http.StatusUnauthorized && strings.Contains(lower, "no org id"):
		return is(pushRetry, sink.ReasonUnauthorized, "Loki wants a tenant: set tenant_id")
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden, a.status == http.StatusProxyAuthRequired:
		return is(pushRetry, sink.ReasonUnauthorized, "check the credentials and tenant_id")
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed, a.status == http.StatusGone, a.status/100 == 3:
		return is(pushRetry, sink.ReasonNotFound, "check the path of the url: Loki takes pushes at "+pushPath)
	case a.status == http.StatusBadRequest && strings.Contains(lower, "http request") && strings.Contains(lower, "https"):
		return is(pushRetry, sink.ReasonNotFound, "begin the url with https://")

	case a.status == http.StatusRequestEntityTooLarge,
		a.status == http.StatusInternalServerError && strings.Contains(lower, "resourceexhausted"):
		return is(pushTooLarge, sink.ReasonRejected, "")

	case a.status == http.StatusTooManyRequests:
		return c.classifyTooManyRequests(a, body, is)
	case a.status == http.StatusBadRequest:
		return c.classifyBadRequest(a, body, is)
	case a.status == http.StatusUnprocessableEntity, a.status == http.StatusInternalServerError:
		return is(pushRejected, sink.ReasonRejected, "")
	default:
		return is(pushRetry, sink.ReasonUnavailable, "")
	}
}

// classifyTooManyRequests is for 429. Loki's own, other than for the tenant's rate, are
// about a single stream.
func (c *client) classifyTooManyRequests(a response, body string, is func(outcome, string, string) result) result {
	if r, ok := parseRejection(body); ok && !a.truncated {
		v := is(pushPartlyRejected, sink.ReasonRateLimited, "")
		v.err.StreamOnly = true
		v.rejection = r
		return v
	}
	lower := strings.ToLower(body)
	switch {
	case strings.Contains(lower, "maximum active stream limit exceeded"):
		v := is(pushRetry, sink.ReasonStreamLimit, "")
		v.err.StreamOnly = true
		return v
	case strings.Contains(lower, "per stream rate limit exceeded"):
		v := is(pushRetrySmaller, sink.ReasonRateLimited, "")
		v.err.StreamOnly = true
		return v
	}
	return is(pushRetrySmaller, sink.ReasonRateLimited, "")
}

// classifyBadRequest is for 400.
func (c *client) classifyBadRequest(a response, body string, is func(outcome, string, string) result) result {
	if rejectsLabels(body) {
		v := is(pushRetry, sink.ReasonRejected, "Loki takes none of this stream: its labels are against the limits of the tenant")
		v.err.StreamOnly = true
		return v
	}
	r, ok := parseRejection(body)
	if !ok || a.truncated {
		return is(pushRejected, sink.ReasonRejected, "")
	}
	advice := ""
	if r.metadataDisallowed > 0 {
		advice = "this Loki takes no structured metadata: set structured_metadata: false, or allow_structured_metadata in its limits"
	}
	v := is(pushPartlyRejected, sink.ReasonRejected, advice)
	v.rejection = r
	return v
}

// retryAfter reads how long a server wants to be left alone: a number of seconds
// or a date. More than an hour is not believed.
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
