package loki_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
)

func TestContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) (sink.Sink, sinktest.Destination) {
		d := newServer(t)
		return newSink(t, d.URL, nil), d
	})
}

func TestPush(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, func(c *loki.Config, _ *loki.Options) { c.TenantID = "team-a" })
	records := sinktest.Records(7, 1)
	var labels string
	var got []entry
	d.answer = func(_ http.ResponseWriter, l string, entries []entry) (int, string) {
		labels, got = l, entries
		return http.StatusNoContent, ""
	}
	if err := s.Send(t.Context(), sinktest.Batch(s, records)); err != nil {
		t.Fatal(err)
	}
	r := d.requests[0]
	if r.Method != http.MethodPost || r.URL.Path != "/loki/api/v1/push" ||
		r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("X-Scope-OrgID") != "team-a" {
		t.Errorf("got %s %s with the header %v", r.Method, r.URL, r.Header)
	}
	if want := `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled"}`; labels != want {
		t.Errorf("labels are %s, want %s", labels, want)
	}
	if !got[0].at.Equal(records[0].Time) {
		t.Errorf("time is %v, want %v", got[0].at, records[0].Time)
	}
	if want := "name=web-0 kind=Pod "; !strings.HasPrefix(got[0].line, want) {
		t.Errorf("line is %q, want it to begin with %q", got[0].line, want)
	}
	want := [][2]string{
		{"count", "1"},
		{"detected_level", "info"},
		{"event_uid", "00000000-0000-0000-0000-000000000007"},
		{"event_version", "1007"},
		{"kind", "Pod"},
		{"name", "web-0"},
		{"type", "Normal"},
	}
	if !slices.Equal(got[0].metadata, want) {
		t.Errorf("metadata is %v, want %v", got[0].metadata, want)
	}
}

// send sends a batch as the delivery does, until it is settled. It returns the
// errors of the attempts and, if there is one, that of the end.
func send(t *testing.T, s *loki.Sink, b *sink.Batch, attempts int) (failed []*sink.Error, refused *sink.Error) {
	t.Helper()
	for range attempts {
		err := s.Send(t.Context(), b)
		if err == nil {
			return failed, nil
		}
		why := asError(t, err)
		if len(why.Rejected) > 0 {
			return failed, why
		}
		failed = append(failed, why)
	}
	t.Fatalf("not settled after %d attempts; the last: %v", attempts, failed[len(failed)-1])
	return nil, nil
}

func asError(t *testing.T, err error) *sink.Error {
	t.Helper()
	var why *sink.Error
	if !errors.As(err, &why) {
		t.Fatalf("got %v, want a *sink.Error", err)
	}
	return why
}

// todays makes a batch of n records of the last hour, a second apart.
func todays(s sink.Sink, n int) *sink.Batch {
	records := sinktest.Records(0, n)
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range records {
		records[i].Time = start.Add(time.Duration(i)*time.Second + time.Duration(i))
	}
	return sinktest.Batch(s, records)
}

func TestAnswers(t *testing.T) {
	const tooMuch = "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '1000' lines totaling '524288' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased\n"
	const ofStream = `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled", service_name="hindsight"}`
	for name, c := range map[string]struct {
		status     int
		body       string
		header     http.Header
		reason     string
		streamOnly bool
		retryAfter time.Duration
		says       string
	}{
		"260: ingestion is blocked": {
			260, "ingestion blocked for user 'fake' until '2099-01-01T00:00:00Z' with status code '260'\n", nil,
			sink.ReasonBlocked, false, 0, "block_ingestion_until",
		},
		"ingestion is blocked with another status": {
			400, "ingestion blocked for user 'fake' (policy: 'finance') until '2099-01-01T00:00:00Z' with status code '400'\n", nil,
			sink.ReasonBlocked, false, 0, "block_ingestion_until",
		},
		"another success than Loki's": {
			202, "", nil, sink.ReasonUnavailable, false, 0, "202 Accepted",
		},
		"the page of a login": {
			200, "<html>please log in",
			http.Header{"Content-Type": {"text/html; charset=utf-8"}},
			sink.ReasonNotFound, false, 0, "this is a web page",
		},
		"a redirect that makes a GET of it": {
			302, "",
			http.Header{"Location": {"https://sso.example/login?token=geheim"}},
			sink.ReasonNotFound, false, 0, "redirects to https://sso.example/login;",
		},
		"a redirect to another host": {
			308, "",
			http.Header{"Location": {"https://loki.example/loki/api/v1/push"}},
			sink.ReasonNotFound, false, 0, "set the url to it",
		},
		"no tenant": {401, "no org id\n", nil, sink.ReasonUnauthorized, false, 0, "set tenant_id"},
		"no or wrong credentials": {
			401, "", nil, sink.ReasonUnauthorized, false, 0, "check the credentials",
		},
		"forbidden":  {403, "RBAC: access denied", nil, sink.ReasonUnauthorized, false, 0, "check the credentials"},
		"wrong path": {404, "404 page not found\n", nil, sink.ReasonNotFound, false, 0, "check the path of the url: Loki takes pushes at /loki/api/v1/push"},
		"wrong path, method not allowed": {
			405, "", nil, sink.ReasonNotFound, false, 0, "check the path of the url",
		},
		"http where it should be https": {
			400, "Client sent an HTTP request to an HTTPS server.\n", nil,
			sink.ReasonNotFound, false, 0, "https://",
		},
		"the tenant's rate": {429, tooMuch, nil, sink.ReasonRateLimited, false, 0, "ingestion rate limit exceeded"},
		"a gateway that says when to come again": {
			429, "", http.Header{"Retry-After": {"17"}}, sink.ReasonRateLimited, false, 17 * time.Second, "429",
		},
		"a gateway that says so at an outage": {
			503, "", http.Header{"Retry-After": {"120"}}, sink.ReasonUnavailable, false, 2 * time.Minute, "503",
		},
		"a gateway that never wants to be asked again": {
			503, "", http.Header{"Retry-After": {"99999999"}}, sink.ReasonUnavailable, false, time.Hour, "503",
		},
		"a gateway that says nothing sensible": {
			503, "", http.Header{"Retry-After": {"-soon"}}, sink.ReasonUnavailable, false, 0, "503",
		},
		"the stream's rate": {
			429, "entry with timestamp 2019-07-19 11:00:00.000001 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '" + ofStream + "' totaling 135B, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased',\nuser 'fake', total ignored: 3 out of 3 for stream: " + ofStream + "\n", nil,
			sink.ReasonRateLimited, true, 0, "Per stream rate limit exceeded",
		},
		"the number of streams": {
			429, "maximum active stream limit exceeded when trying to create stream " + ofStream + ", reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'\n", nil,
			sink.ReasonStreamLimit, true, 0, "maximum active stream limit",
		},
		"too many labels": {
			400, "entry for stream '" + ofStream + "' has 5 label names; limit 3\n", nil,
			sink.ReasonRejected, true, 0, "labels are against the limits",
		},
		"a label's value is too long, and looks like a refusal of entries": {
			400, "stream '" + ofStream + "' has label value too long: '; 3 errors like: entry for stream '{}' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T11:00:00Z'\n", nil,
			sink.ReasonRejected, true, 0, "labels are against the limits",
		},
		"labels that have to be there are not": {
			400, "missing required labels 'team' for user 'fake' for stream '" + ofStream + "' (policy: '')\n", nil,
			sink.ReasonRejected, true, 0, "missing required labels",
		},
		"no structured metadata": {
			400, "3 errors like: stream '" + ofStream + "' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it\n", nil,
			sink.ReasonRejected, false, 0, "set structured_metadata: false",
		},
		"a refusal without a reason":  {400, "bad request", nil, sink.ReasonRejected, false, 0, "400 Bad Request: bad request"},
		"an error of the server":      {500, "empty ring\n", nil, sink.ReasonRejected, false, 0, "empty ring"},
		"a gateway without a backend": {502, "", nil, sink.ReasonUnavailable, false, 0, "502 Bad Gateway"},
		"a gateway that waited long":  {504, "", nil, sink.ReasonUnavailable, false, 0, "504"},
		"a code that only nginx has":  {499, "", nil, sink.ReasonUnavailable, false, 0, "499"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newServer(t)
			s := newSink(t, d.URL, nil)
			d.answer = func(w http.ResponseWriter, _ string, _ []entry) (int, string) {
				for k, v := range c.header {
					w.Header()[k] = v
				}
				return c.status, c.body
			}
			b := todays(s, 3)
			why := asError(t, s.Send(t.Context(), b))
			if why.Permanent || len(why.Rejected) > 0 {
				t.Fatalf("something was given up: %+v", why)
			}
			if why.Reason != c.reason || why.StreamOnly != c.streamOnly || why.RetryAfter != c.retryAfter {
				t.Errorf("got reason %s, of the stream only %v, again after %v; want %s, %v, %v",
					why.Reason, why.StreamOnly, why.RetryAfter, c.reason, c.streamOnly, c.retryAfter)
			}
			if !strings.Contains(why.Error(), c.says) || strings.Contains(why.Error(), "\n") || strings.Contains(why.Error(), "geheim") {
				t.Errorf("the error is %q, want one line with %q and no secret", why, c.says)
			}
			if !slices.Contains(sink.Reasons, why.Reason) {
				t.Errorf("%q is not a reason for metrics", why.Reason)
			}
			// Once it is mended, all arrives.
			d.set(func() { d.answer = nil; d.stored = nil })
			if err := s.Send(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if len(d.stored) != 3 {
				t.Errorf("%d entries stored, want 3", len(d.stored))
			}
		})
	}
}

func TestRetryAfterAsADate(t *testing.T) {
	d := newServer(t)
	s := newSink(t, d.URL, nil)
	d.answer = func(w http.ResponseWriter, _ string, _ []entry) (int, string) {
		w.Header().Set("Retry-After", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
		return http.StatusServiceUnavailable, ""
	}
	b := todays(s, 1)
	why := asError(t, s.Send(t.Context(), b))
	if why.RetryAfter < 9*time.Minute || why.RetryAfter > 10*time.Minute {
		t.Errorf("again after %v, want 10m", why.RetryAfter)
	}
}

func TestRedirectThatKeepsThePushIsFollowed(t *testing.T) {
	d := newServer(t)
	front := http.NewServeMux()
	s := newSink(t, d.URL+"/old", nil)
	inner := d.Config.Handler
	front.HandleFunc("/old", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/loki/api/v1/push", http.StatusPermanentRedirect)
	})
	front.Handle("/", inner)
	d.Config.Handler = front
	b := todays(s, 2)
	if err := s.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if len(d.stored) != 2 {
		t.Errorf("%d entries stored, want 2", len(d.stored))
	}
}

func TestLimits(t *testing.T) {
	s := newSink(t, "http://loki", func(c *loki.Config, _ *loki.Options) {
		c.MaxRate = 1 << 20
		c.BatchWait = quantity.Duration(3 * time.Second)
	})
	l := s.Limits()
	if l.Rate != 1<<20 || l.BatchWait != 3*time.Second {
		t.Errorf("limits are %+v, want what is configured", l)
	}
	// Loki splits a stream when its rate and a push together exceed 1536 KiB/s.
	if l.StreamRate+float64(l.BatchBytes) > 1536<<10 {
		t.Errorf("a stream of %v bytes/s with pushes of %d is split by Loki", l.StreamRate, l.BatchBytes)
	}
}
