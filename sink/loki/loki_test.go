package loki_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/internal/quantity"
	"github.com/hindsight-events/hindsight/sink"
	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/sink/sinktest"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

func TestContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) (sink.Sink, sinktest.Destination) {
		l := startLoki(t)
		return newSink(t, l.URL, nil), destination{l}
	})
}

type destination struct{ *fakeloki.Server }

func (d destination) Received() string { return strings.Join(storedLines(d.Server), "\n") }

func (d destination) Fail(n int) {
	d.ScriptPushes(fakeloki.Times(n, fakeloki.Respond(http.StatusServiceUnavailable, "at least 1 live replicas required, could only find 0")))
}

func (d destination) Hang()     { d.ScriptPushes(d.Server.Hang) }
func (destination) Break() bool { return false } // Loki can always recover

func TestPush(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, func(c *loki.Config, _ *loki.Options) { c.TenantID = "team-a" })
	records := sinktest.Records(7, 1)
	if err := s.Send(t.Context(), sinktest.Batch(s, records)); err != nil {
		t.Fatal(err)
	}
	p := l.Pushes()[0]
	if r := p.Request; r.Method != http.MethodPost || r.URL.Path != "/loki/api/v1/push" ||
		r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("X-Scope-OrgID") != "team-a" {
		t.Errorf("got %s %s with the header %v", r.Method, r.URL, r.Header)
	}
	if len(p.Streams) != 1 || len(p.Entries()) != 1 {
		t.Fatalf("got the streams %v, want one with one entry", p.Streams)
	}
	if got, want := p.Streams[0].Labels, `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled"}`; got != want {
		t.Errorf("labels are %s, want %s", got, want)
	}
	e := p.Entries()[0]
	if !e.Time.Equal(records[0].Time) {
		t.Errorf("time is %v, want %v", e.Time, records[0].Time)
	}
	if want := "reason=Pulled kind=Pod name=web-0 msg="; !strings.HasPrefix(e.Line, want) {
		t.Errorf("line is %q, want it to begin with %q", e.Line, want)
	}
	want := map[string]string{
		"count":          "1",
		"detected_level": "info",
		"event_uid":      "00000000-0000-0000-0000-000000000007",
		"event_version":  "1007",
		"kind":           "Pod",
		"name":           "web-0",
		"type":           "Normal",
	}
	if !maps.Equal(e.Metadata, want) {
		t.Errorf("metadata is %v, want %v", e.Metadata, want)
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	const tenantRate = "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '1000' lines totaling '524288' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased\n"
	const ofStream = `{cluster="prod", job="hindsight", namespace="team-a", reason="Pulled", service_name="hindsight"}`
	for name, c := range map[string]struct {
		status     int
		body       string
		header     http.Header
		reason     string
		streamOnly bool
		retryAfter time.Duration
		message    string
	}{
		"260: ingestion is blocked": {
			260, "ingestion blocked for user 'fake' until '2099-01-01T00:00:00Z' with status code '260'\n", nil,
			sink.ReasonBlocked, false, 0, "block_ingestion_until",
		},
		"ingestion is blocked with another status": {
			400, "ingestion blocked for user 'fake' (policy: 'finance') until '2099-01-01T00:00:00Z' with status code '400'\n", nil,
			sink.ReasonBlocked, false, 0, "block_ingestion_until",
		},
		"a success status that Loki does not use": {
			202, "", nil, sink.ReasonUnavailable, false, 0, "202 Accepted",
		},
		"a login page": {
			200, "<html>please log in",
			http.Header{"Content-Type": {"text/html; charset=utf-8"}},
			sink.ReasonNotFound, false, 0, "this is a web page",
		},
		"a redirect that turns it into a GET": {
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
		"wrong path": {404, "404 page not found\n", nil, sink.ReasonNotFound, false, 0, "check the path of the url: Loki accepts pushes at /loki/api/v1/push"},
		"wrong path, method not allowed": {
			405, "", nil, sink.ReasonNotFound, false, 0, "check the path of the url",
		},
		"HTTP to an HTTPS server": {
			400, "Client sent an HTTP request to an HTTPS server.\n", nil,
			sink.ReasonNotFound, false, 0, "https://",
		},
		"rate limit of the tenant": {429, tenantRate, nil, sink.ReasonRateLimited, false, 0, "ingestion rate limit exceeded"},
		"a gateway with Retry-After": {
			429, "", http.Header{"Retry-After": {"17"}}, sink.ReasonRateLimited, false, 17 * time.Second, "429",
		},
		"an outage with Retry-After": {
			503, "", http.Header{"Retry-After": {"120"}}, sink.ReasonUnavailable, false, 2 * time.Minute, "503",
		},
		"Retry-After of years": {
			503, "", http.Header{"Retry-After": {"99999999"}}, sink.ReasonUnavailable, false, time.Hour, "503",
		},
		"an invalid Retry-After": {
			503, "", http.Header{"Retry-After": {"-soon"}}, sink.ReasonUnavailable, false, 0, "503",
		},
		"rate limit of the stream": {
			429, "entry with timestamp 2019-07-19 11:00:00.000001 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '" + ofStream + "' totaling 135B, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased',\nuser 'fake', total ignored: 3 out of 3 for stream: " + ofStream + "\n", nil,
			sink.ReasonRateLimited, true, 0, "Per stream rate limit exceeded",
		},
		"limit of streams": {
			429, "maximum active stream limit exceeded when trying to create stream " + ofStream + ", reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'\n", nil,
			sink.ReasonStreamLimit, true, 0, "maximum active stream limit",
		},
		"too many labels": {
			400, "entry for stream '" + ofStream + "' has 5 label names; limit 3\n", nil,
			sink.ReasonRejected, true, 0, "labels exceed the limits",
		},
		"a label value that is too long and looks like a rejection of entries": {
			400, "stream '" + ofStream + "' has label value too long: '; 3 errors like: entry for stream '{}' has timestamp too old: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2019-07-19T11:00:00Z'\n", nil,
			sink.ReasonRejected, true, 0, "labels exceed the limits",
		},
		"missing required labels": {
			400, "missing required labels 'team' for user 'fake' for stream '" + ofStream + "' (policy: '')\n", nil,
			sink.ReasonRejected, true, 0, "missing required labels",
		},
		"no structured metadata": {
			400, "3 errors like: stream '" + ofStream + "' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it\n", nil,
			sink.ReasonRejected, false, 0, "set structured_metadata: false",
		},
		"a rejection without a reason":  {400, "bad request", nil, sink.ReasonRejected, false, 0, "400 Bad Request: bad request"},
		"an internal error":             {500, "empty ring\n", nil, sink.ReasonRejected, false, 0, "empty ring"},
		"a gateway without a backend":   {502, "", nil, sink.ReasonUnavailable, false, 0, "502 Bad Gateway"},
		"a gateway timeout":             {504, "", nil, sink.ReasonUnavailable, false, 0, "504"},
		"a status that only nginx uses": {499, "", nil, sink.ReasonUnavailable, false, 0, "499"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoki(t)
			s := newSink(t, l.URL, nil)
			l.ScriptPushes(func(*fakeloki.Push) fakeloki.Response {
				return fakeloki.Response{Status: c.status, Header: c.header, Body: c.body}
			})
			b := recentBatch(s, 3)
			err := asError(t, s.Send(t.Context(), b))
			if err.Permanent || len(err.Rejected) > 0 {
				t.Fatalf("records rejected: %+v", err)
			}
			if err.Reason != c.reason || err.StreamOnly != c.streamOnly || err.RetryAfter != c.retryAfter {
				t.Errorf("got Reason %s, StreamOnly %v, RetryAfter %v; want %s, %v, %v",
					err.Reason, err.StreamOnly, err.RetryAfter, c.reason, c.streamOnly, c.retryAfter)
			}
			if !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "geheim") {
				t.Errorf("the error is %q, want one line with %q and no secret", err, c.message)
			}
			if !slices.Contains(sink.Reasons, err.Reason) {
				t.Errorf("%q is not one of sink.Reasons", err.Reason)
			}
			// All entries arrive after the outage.
			l.Clear()
			l.ScriptPushes(accept)
			if err := s.Send(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if n := len(storedLines(l)); n != 3 {
				t.Errorf("%d entries stored, want 3", n)
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	s := newSink(t, l.URL, nil)
	l.ScriptPushes(func(*fakeloki.Push) fakeloki.Response {
		date := time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat)
		return fakeloki.Response{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {date}}}
	})
	err := asError(t, s.Send(t.Context(), recentBatch(s, 1)))
	if err.RetryAfter < 9*time.Minute || err.RetryAfter > 10*time.Minute {
		t.Errorf("RetryAfter is %v, want 10m", err.RetryAfter)
	}
}

func TestRedirectOfAPushIsFollowed(t *testing.T) {
	t.Parallel()
	l := startLoki(t)
	l.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/old" {
			http.Redirect(w, r, "/loki/api/v1/push", http.StatusPermanentRedirect)
		}
		return r.URL.Path == "/old"
	})
	s := newSink(t, l.URL+"/old", nil)
	if err := s.Send(t.Context(), recentBatch(s, 2)); err != nil {
		t.Fatal(err)
	}
	if n := len(storedLines(l)); n != 2 {
		t.Errorf("%d entries stored, want 2", n)
	}
}

func TestLimits(t *testing.T) {
	s := newSink(t, "http://loki", func(c *loki.Config, _ *loki.Options) {
		c.MaxRate = 1 << 20
		c.BatchWait = quantity.Duration(3 * time.Second)
		c.NormalBatchWait = quantity.Duration(7 * time.Second)
	})
	l := s.Limits()
	if l.Rate != 1<<20 || l.BatchWait != 3*time.Second || l.NormalBatchWait != 7*time.Second {
		t.Errorf("limits are %+v, want the configured ones", l)
	}
	// Loki splits a stream if its rate and a push together exceed 1536 KiB/s.
	if l.StreamRate+float64(l.BatchBytes) > 1536<<10 {
		t.Errorf("a stream of %v bytes/s with pushes of %d is split by Loki", l.StreamRate, l.BatchBytes)
	}
}
