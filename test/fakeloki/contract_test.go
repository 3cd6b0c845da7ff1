package fakeloki_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// TestContract runs the table of requests and answers against the fake; TestContractOfLoki runs it
// against a real Loki, if one is installed.
func TestContract(t *testing.T) {
	contract(t, func(t *testing.T, o fakeloki.Options) string { return fakeloki.Start(t, o).URL })
}

// contract checks requests and answers. start starts a Loki and returns its URL.
func contract(t *testing.T, start func(*testing.T, fakeloki.Options) string) {
	standard := loki{url: start(t, fakeloki.Options{})}
	for _, c := range pushes() {
		t.Run("push/"+c.name, func(t *testing.T) {
			l := standard
			if c.options != (fakeloki.Options{}) {
				l = loki{url: start(t, c.options)}
			}
			for _, p := range c.before {
				l.push(t, p, http.StatusNoContent, "^$")
			}
			l.push(t, c.push, c.status, c.body)
			if c.tenant != "" {
				l.tenant = c.tenant
			} else if c.options.Auth {
				return
			}
			var got []string
			for _, s := range c.push {
				if strings.HasPrefix(s.labels, `{case="`) { // else it is no selector
					got = append(got, l.lines(t, s.labels, url.Values{})...)
				}
			}
			slices.Sort(got) // entries of the same time have no order
			if !slices.Equal(got, c.stored) {
				t.Errorf("%d lines are stored: %.300q, want %d: %.300q", len(got), got, len(c.stored), c.stored)
			}
		})
	}
	queries(t, loki{url: start(t, fakeloki.Options{})})
}

// loki is under test.
type loki struct{ url, tenant string }

// entry of a push, relative to the time of the test.
type entry struct {
	age      time.Duration
	line     string
	metadata map[string]string
}

type stream struct {
	labels  string
	entries []entry
}

// body is a body that a test has encoded itself.
type body struct{ contentType, text string }

var now = time.Now().Truncate(time.Second)

// push sends streams as snappy and protobuf, or the body that is given.
func (l *loki) push(t *testing.T, streams []stream, status int, wantBody string, raw ...body) {
	t.Helper()
	b := body{"application/x-protobuf", string(snappy.Encode(nil, encode(streams)))}
	if len(raw) > 0 {
		b = raw[0]
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url+"/loki/api/v1/push", strings.NewReader(b.text))
	if err != nil {
		t.Fatal(err)
	}
	if b.contentType != "" {
		req.Header.Set("Content-Type", b.contentType)
	}
	l.do(t, req, status, wantBody)
}

// do sends a request and checks the answer.
func (l *loki) do(t *testing.T, req *http.Request, status int, wantBody string) []byte {
	t.Helper()
	if l.tenant != "" {
		req.Header.Set("X-Scope-OrgID", l.tenant)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status || !regexp.MustCompile("(?s)"+wantBody).Match(got) {
		t.Errorf("the answer is %d %.500q, want %d %q", resp.StatusCode, got, status, wantBody)
	}
	return got
}

// get queries the last four hours, unless the parameters have another range.
func (l *loki) get(t *testing.T, path string, v url.Values, status int, wantBody string) []byte {
	t.Helper()
	q := url.Values{"start": {ns(4 * time.Hour)}, "end": {ns(-time.Hour)}}
	for name, values := range v {
		q[name] = values
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+"/loki/api/v1/"+path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.Get("flat") == "" {
		req.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	}
	return l.do(t, req, status, wantBody)
}

func ns(age time.Duration) string { return strconv.FormatInt(now.Add(-age).UnixNano(), 10) }

// found is an answer to query_range.
type found struct {
	Data struct {
		ResultType string
		Result     []struct {
			Stream map[string]string
			Values [][]json.RawMessage
		}
	}
}

// lines returns the lines that a query finds, oldest first unless a direction is asked for.
func (l *loki) lines(t *testing.T, query string, v url.Values) (lines []string) {
	t.Helper()
	if v.Get("direction") == "" {
		v.Set("direction", "forward")
	}
	v.Set("query", query)
	var a found
	if err := json.Unmarshal(l.get(t, "query_range", v, http.StatusOK, ""), &a); err != nil || a.Data.ResultType != "streams" {
		t.Fatalf("%s: result type %q: %v", query, a.Data.ResultType, err)
	}
	type at struct {
		time string
		line string
	}
	var all []at
	for _, s := range a.Data.Result {
		for _, v := range s.Values {
			var e at
			if json.Unmarshal(v[0], &e.time) != nil || json.Unmarshal(v[1], &e.line) != nil {
				t.Fatalf("%s: entry %s", query, v)
			}
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b at) int {
		if v.Get("direction") == "backward" {
			a, b = b, a
		}
		return strings.Compare(a.time, b.time)
	})
	for _, e := range all {
		lines = append(lines, e.line)
	}
	return lines
}

// encode writes a PushRequest.
func encode(streams []stream) (request []byte) {
	message := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	for _, s := range streams {
		b := message(nil, 1, []byte(s.labels))
		for _, e := range s.entries {
			at := now.Add(-e.age)
			stamp := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(at.Unix()))
			stamp = protowire.AppendVarint(protowire.AppendTag(stamp, 2, protowire.VarintType), uint64(at.Nanosecond()))
			entry := message(message(nil, 1, stamp), 2, []byte(e.line))
			// Else Loki guesses a level.
			metadata := [][2]string{{"detected_level", "info"}}
			for name, value := range e.metadata {
				metadata = append(metadata, [2]string{name, value})
			}
			slices.SortFunc(metadata, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
			for _, pair := range metadata {
				entry = message(entry, 3, message(message(nil, 1, []byte(pair[0])), 2, []byte(pair[1])))
			}
			b = message(b, 2, entry)
		}
		request = message(request, 1, b)
	}
	return request
}

// pushCase is a push, its answer, and the lines that are stored.
type pushCase struct {
	name    string
	options fakeloki.Options
	before  [][]stream // stored before
	push    []stream
	status  int
	body    string // a pattern
	stored  []string
	tenant  string // of the query
}

// labelled returns the selector of a new stream.
func labelled(name string) string {
	return fmt.Sprintf(`{case=%q, service_name="contract"}`, name)
}

func pushes() (all []pushCase) {
	// one returns a push of one stream.
	one := func(name string, entries ...entry) []stream { return []stream{{labelled(name), entries}} }
	ok := entry{time.Minute, "fine", nil}
	const ofStream = `'\{case="[a-z-]+", service_name="contract"\}'`
	many := map[string]string{}
	for i := range 129 {
		many[fmt.Sprintf("n%d", i)] = "x"
	}
	var behind []entry
	for i := range 30 {
		behind = append(behind,
			entry{time.Duration(60-i) * time.Second, fmt.Sprintf("in time %02d", i), nil},
			entry{3*time.Hour - time.Duration(i)*time.Second, "behind", nil})
	}
	var inTime []string
	for i := range 30 {
		inTime = append(inTime, fmt.Sprintf("in time %02d", i))
	}
	large := make([]entry, 40)
	for i := range large {
		large[i] = entry{time.Minute, fmt.Sprint(i) + strings.Repeat("x", 128<<10), nil}
	}
	labels := "{service_name=\"contract\""
	for i := range 16 {
		labels += fmt.Sprintf(", l%d=\"x\"", i)
	}
	labels += "}"
	limits := func(l fakeloki.Limits) fakeloki.Options { return fakeloki.Options{Limits: l} }
	return []pushCase{
		{name: "accepted", push: one("accepted", ok, entry{0, "newer", nil}), status: 204, body: "^$", stored: []string{"fine", "newer"}},
		{name: "repeated", before: [][]stream{one("repeated", ok)}, push: one("repeated", ok), status: 204, body: "^$", stored: []string{"fine"}},
		{
			name: "same time, other line or metadata", push: one("same", ok, entry{time.Minute, "fine", map[string]string{"a": "b"}}, entry{time.Minute, "other", nil}),
			status: 204, body: "^$", stored: []string{"fine", "fine", "other"},
		},
		{
			name: "too old", push: one("too-old", entry{8 * 24 * time.Hour, "old", nil}, ok), status: 400, stored: []string{"fine"},
			body: "^entry for stream " + ofStream + ` has timestamp too old: [-0-9T:Z]+, oldest acceptable timestamp is: [-+0-9T:Z]+\n$`,
		},
		{
			name: "several too old", push: one("several-too-old", entry{8 * 24 * time.Hour, "old", nil}, entry{8 * 24 * time.Hour, "old too", nil}, entry{-time.Hour, "early", nil}, ok), status: 400, stored: []string{"fine"},
			body: `2 errors like: entry for stream .* has timestamp too old: .*`,
		},
		{
			name: "too new", push: one("too-new", ok, entry{-30 * time.Minute, "early", nil}), status: 400, stored: []string{"fine"},
			body: "^entry for stream " + ofStream + ` has timestamp too new: [-0-9T:Z]+\n$`,
		},
		{
			name: "line too long", push: one("too-long", ok, entry{time.Minute, strings.Repeat("x", 256<<10+1), nil}), status: 400, stored: []string{"fine"},
			body: "^max entry size '262144' bytes exceeded for stream " + ofStream + " while adding an entry with length '262145' bytes\n$",
		},
		{
			name: "metadata too large", push: one("too-large", ok, entry{time.Minute, "much", map[string]string{"a": strings.Repeat("x", 64<<10)}}), status: 400, stored: []string{"fine"},
			body: "^stream " + ofStream + ` has structured metadata too large: '\d+' bytes, limit: '65536' bytes\. `,
		},
		{
			name: "metadata too many", push: one("too-many", ok, entry{time.Minute, "many", many}), status: 400, stored: []string{"fine"},
			body: "^stream " + ofStream + ` has too many structured metadata labels: '130', limit: '128'\. `,
		},
		{name: "metadata without a name", push: one("nameless", ok, entry{time.Minute, "nameless", map[string]string{"__": "x"}}), status: 500, body: "."},
		{name: "too many labels", push: []stream{{labels, []entry{ok}}}, status: 400, body: `^entry for stream '\{.*\}' has 16 label names; limit 15`},
		{name: "label too long", push: one(strings.Repeat("x", 2049), ok), status: 400, body: `^stream '\{.*\}' has label value too long: 'xxx`},
		{name: "no labels", push: []stream{{"{}", []entry{ok}}}, status: 204, body: "^$"}, // it gets a service_name
		{name: "one stream cannot be parsed", push: []stream{{labelled("parsed"), []entry{ok}}, {`{case=}`, []entry{ok}}}, status: 400, body: `^(error parsing|couldn't parse) labels`},

		{
			name: "behind", push: one("behind", ok, entry{2 * time.Hour, "late", nil}), status: 400, stored: []string{"fine"},
			body: `^entry with timestamp \S+ \S+ \+0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: [-0-9T:Z]+, oldest acceptable timestamp is: [-0-9T:Z]+',\n` +
				`user 'fake', total ignored: 1 out of 2 for stream: \{case="behind", service_name="contract"\}\n?$`,
		},
		{
			name: "many behind", push: one("many-behind", behind...), status: 400, stored: inTime,
			body: `^(entry with timestamp [^\n]* ignored, reason: 'entry too far behind, [^\n]*',\n){10}user 'fake', total ignored: 30 out of 60 for stream`,
		},
		{
			name: "behind, and another stream after it", status: 204, body: "^$", stored: []string{"fine", "fine"},
			push: []stream{{labelled("hidden"), []entry{ok, {2 * time.Hour, "late", nil}}}, {labelled("last"), []entry{ok}}},
		},
		{
			name: "behind, and another stream before it", status: 400, body: "total ignored: 1 out of 2 for stream", stored: []string{"fine", "fine"},
			push: []stream{{labelled("first"), []entry{ok}}, {labelled("seen"), []entry{ok, {2 * time.Hour, "late", nil}}}},
		},
		{
			name: "too old, and another stream after it", status: 400, body: "has timestamp too old", stored: []string{"fine"},
			push: []stream{{labelled("old-first"), []entry{{8 * 24 * time.Hour, "old", nil}}}, {labelled("good-last"), []entry{ok}}},
		},

		{name: "more than a message may have", push: one("large", large...), status: 500, body: "ResourceExhausted"},
		{
			name: "rate of the tenant", options: limits(fakeloki.Limits{IngestionRate: 1 << 20, IngestionBurst: 1 << 20}), push: one("rate", large[:10]...), status: 429,
			body: `^ingestion rate limit exceeded for user fake \(limit: 1048576 bytes/sec\) while attempting to ingest '10' lines totaling '\d+' bytes, `,
		},
		{
			name: "rate of a stream", options: limits(fakeloki.Limits{PerStreamRate: 1 << 20, PerStreamBurst: 1 << 20}), push: one("rate", large[:10]...), status: 429,
			body: `^(?i)(entry with timestamp .* ignored, reason: ')?per stream rate limit exceeded \(limit: .*\) while attempting to ingest for stream`,
		},
		{
			name: "number of streams", options: limits(fakeloki.Limits{MaxStreams: 1}), before: [][]stream{one("first", ok)}, push: one("second", ok), status: 429,
			body: `^maximum active stream limit exceeded when trying to create stream \{case="second", service_name="contract"\}`,
		},
		{
			name: "no metadata", options: limits(fakeloki.Limits{DisallowStructuredMetadata: true}), push: one("none", ok), status: 400,
			body: "^stream " + ofStream + " includes structured metadata, but this feature is disallowed",
		},
		{name: "blocked", options: limits(fakeloki.Limits{BlockIngestionUntil: now.Add(time.Hour)}), push: one("blocked", ok), status: 260, body: "^ingestion blocked for user"},
		{name: "without a tenant", options: fakeloki.Options{Auth: true}, push: one("none", ok), status: 401, body: "^no org id\n?$"},
	}
}

// queries stores a few entries and checks the answers to queries.
func queries(t *testing.T, l loki) {
	m := func(pairs ...string) map[string]string {
		set := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			set[pairs[i]] = pairs[i+1]
		}
		return set
	}
	const a, b, j = `{job="q", ns="a", reason="Pulled", service_name="contract"}`, `{job="q", ns="b", reason="other", service_name="contract"}`, `{job="j", service_name="contract"}`
	l.push(t, []stream{{a, []entry{
		{50 * time.Second, `msg=one name=x`, m("kind", "Pod", "name", "x", "type", "Normal")},
		{40 * time.Second, `msg="two \"quoted\"" name=y`, m("kind", "Pod", "name", "y", "type", "Warning")},
		{30 * time.Second, `msg=three count=7`, m("kind", "Node", "event_version", "17")},
	}}}, 204, "^$")
	l.push(t, []stream{{b, []entry{
		{35 * time.Second, `msg="exceeded quota"`, m("full_reason", "Failed.Quota", "type", "Warning")},
		{20 * time.Second, `msg=Five`, nil},
	}}}, 204, "^$")
	l.push(t, nil, 204, "^$", body{"application/json", `{"streams":[{"stream":{"job":"j","service_name":"contract"},"values":[` +
		`["` + ns(10*time.Second) + `","{\"event\":{\"reason\":\"BackOff\",\"count\":3}}",{"detected_level":"info","uid":"u"}],` +
		`["` + ns(5*time.Second) + `","no JSON",{"detected_level":"info"}]]}]}`})
	// The JSON format of the API before /loki/api/v1 is accepted, and nothing is stored.
	l.push(t, nil, 204, "^$", body{"application/json", `{"streams":[{"labels":"{job=\"legacy\"}","entries":[{"ts":"` + now.Format(time.RFC3339) + `","line":"x"}]}]}`})
	l.push(t, nil, 400, "", body{"", "x"})
	l.push(t, nil, 400, "", body{"application/x-protobuf", "no snappy"})

	const one, two, three, four, five = `msg=one name=x`, `msg="two \"quoted\"" name=y`, `msg=three count=7`, `msg="exceeded quota"`, `msg=Five`
	const object, noJSON = `{"event":{"reason":"BackOff","count":3}}`, "no JSON"
	for _, c := range []struct {
		query string
		v     url.Values
		want  []string
	}{
		{`{job="q"}`, nil, []string{one, two, four, three, five}},
		{`{job="q"}`, url.Values{"direction": {"backward"}}, []string{five, three, four, two, one}},
		{`{job="q"}`, url.Values{"limit": {"2"}}, []string{one, two}},
		{`{job="q"}`, url.Values{"limit": {"2"}, "direction": {"backward"}}, []string{five, three}},
		{`{job="q"}`, url.Values{"start": {ns(40 * time.Second)}, "end": {ns(30 * time.Second)}}, []string{two, four}},
		{`{job="q"}`, url.Values{"start": {fmt.Sprint(now.Unix() - 40)}, "end": {fmt.Sprint(now.Unix() - 30)}}, []string{two, four}},
		{`{job="q"}`, url.Values{"flat": {"1"}}, []string{one, two, four, three, five}},
		{`{job="legacy"}`, nil, nil},
		{`{job="q", ns="a"}`, nil, []string{one, two, three}},
		{`{job="q", ns!="a"}`, nil, []string{four, five}},
		{"{job=~`q|r`, reason=~\"Pulled|other\", ns!~\"b.*\"}", nil, []string{one, two, three}},
		{`{job="q", ns=~"b?"}`, nil, []string{four, five}},
		{`{job="q", absent=""}`, nil, []string{one, two, four, three, five}},
		{`{job="q"} | type="Warning"`, nil, []string{two, four}},
		{`{job="q"} | type!="Warning"`, nil, []string{one, three, five}},
		{`{job="q"} | type=~"W.*" | kind=""`, nil, []string{four}},
		{`{job="q"} | type=~"(Warning)?"`, nil, []string{two, four, three, five}},
		{`{job="q"} | type=~"(?:Warning|)?"`, nil, []string{two, four, three, five}},
		{`{job="q"} | type=~"(?:|W.*)?"`, nil, []string{two, four, three, five}},
		{`{job="q"} | type=~"(?:.*)?"`, nil, []string{one, two, four, three, five}},
		{`{job="q"} | type=~".*"`, nil, []string{one, two, four, three, five}},
		{`{job="q"} | type=~"W*.*"`, nil, []string{one, two, four, three, five}},
		{`{job="q"} | type=""`, nil, []string{three, five}},
		{`{job="q"} | type!=""`, nil, []string{one, two, four}},
		{`{job="q"} | type!~"(?:Warning|)?"`, nil, []string{one}},
		{`{job="q", absent=~"x|"}`, nil, []string{one, two, four, three, five}},
		{`{job="q", absent=~""}`, nil, []string{one, two, four, three, five}},
		{`{job="q"} | type!~".+"`, nil, []string{three, five}},
		{`{job="q"} | kind=~"(?i:pod(s|es)?)" | name="x"`, nil, []string{one}},
		{`{job="q"} | kind!~"Pod|Node"`, nil, []string{four, five}},
		{`{job="q", reason=~"Failed.Quota|other"} | reason="Failed.Quota" or full_reason="Failed.Quota"`, nil, []string{four}},
		{"{job=\"q\"} | full_reason=~`Failed\\.Quota`", nil, []string{four}},
		{`{job="q"} | kind="Pod" and type="Warning" or kind="Node"`, nil, []string{two, three}},
		{`{job="q"} | event_version="17"`, nil, []string{three}},
		{`{job="q"} | ns="b"`, nil, []string{four, five}},
		{`{job="q"} |= "exceeded quota"`, nil, []string{four}},
		{`{job="q"} |= "five"`, nil, nil},
		{`{job="q"} != "msg=" |~ "x$"`, nil, nil},
		{`{job="q"} |~ "(?i)FIVE|one"`, nil, []string{one, five}},
		{`{job="q"} !~ "o" | type=""`, nil, []string{five}},
		{`{job="q"} | logfmt event_message="msg" | event_message=~"(?s:.*)(?:one|quoted)(?s:.*)"`, nil, []string{one, two}},
		{`{job="q"} | logfmt event_message="msg", c="count" | event_message="three" | c="7"`, nil, []string{three}},
		{`{job="j"} | json event_reason="event.reason" | event_reason="BackOff"`, nil, []string{object}},
		{`{job="j"} | json c="event.count", r="event.reason" | c="3" | r=~"B.+"`, nil, []string{object}},
		{`{job="j"} | uid!="u"`, nil, []string{noJSON}},
		{`{job="q"} | type="Warning" | line_format "v={{.event_version}} n={{.name}}" | keep job, type`, nil, []string{"v= n=y", "v= n="}},
	} {
		t.Run("query/"+c.query+"/"+c.v.Encode(), func(t *testing.T) {
			if c.v == nil {
				c.v = url.Values{}
			}
			if got := l.lines(t, c.query, c.v); !slices.Equal(got, c.want) {
				t.Errorf("%q are found, want %q", got, c.want)
			}
		})
	}

	for name, c := range map[string]struct {
		v    url.Values
		body string
	}{
		"limit":                 {url.Values{"query": {a}, "limit": {"5001"}}, `^max entries limit per query exceeded, limit > max_entries_limit_per_query \(5001 > 5000\)\n?$`},
		"range":                 {url.Values{"query": {a}, "start": {ns(722 * time.Hour)}, "end": {ns(0)}}, `^the query time range exceeds the limit \(query length: 722h0m0s, limit: 30d1h\)|limit: 721h0m0s`},
		"end before the start":  {url.Values{"query": {a}, "end": {ns(5 * time.Hour)}}, "^end timestamp must not be before or equal to start time\n?$"},
		"no selector":           {url.Values{"query": {"{}"}}, "parse error.*"},
		"a selector of nothing": {url.Values{"query": {`{job=~".*"}`}}, "queries require at least one regexp or equality matcher that does not have an empty-compatible value"},
		"no stage":              {url.Values{"query": {`{job="q"} |`}}, "^parse error at line 1, col "},
		"no value":              {url.Values{"query": {`{job="q"} | type=Warning`}}, "^parse error at line 1, col "},
		"bad pattern":           {url.Values{"query": {`{job="q"} |~ "("`}}, "parse error|error parsing regexp|missing closing"},
	} {
		t.Run("rejected/"+name, func(t *testing.T) { l.get(t, "query_range", c.v, http.StatusBadRequest, c.body) })
	}

	t.Run("metadata apart from labels", func(t *testing.T) {
		v := url.Values{"query": {`{job="q"} | event_version="17"`}}
		var apart, flat found
		if err := json.Unmarshal(l.get(t, "query_range", v, 200, ""), &apart); err != nil {
			t.Fatal(err)
		}
		v.Set("flat", "1")
		if err := json.Unmarshal(l.get(t, "query_range", v, 200, ""), &flat); err != nil {
			t.Fatal(err)
		}
		if len(apart.Data.Result) != 1 || len(flat.Data.Result) != 1 {
			t.Fatalf("%+v, %+v", apart, flat)
		}
		s := apart.Data.Result[0]
		var extra struct{ StructuredMetadata map[string]string }
		if len(s.Stream) != 4 || len(s.Values[0]) != 3 || json.Unmarshal(s.Values[0][2], &extra) != nil || extra.StructuredMetadata["event_version"] != "17" || extra.StructuredMetadata["kind"] != "Node" {
			t.Errorf("with the header: %v %s", s.Stream, s.Values)
		}
		if s = flat.Data.Result[0]; len(s.Values[0]) != 2 || s.Stream["event_version"] != "17" || s.Stream["ns"] != "a" {
			t.Errorf("without: %v %s", s.Stream, s.Values)
		}
	})
	t.Run("labels and metadata that are kept", func(t *testing.T) {
		var a found
		v := url.Values{"query": {`{job="q"} | event_version="17" | line_format "v={{.event_version}}" | keep job, kind`}}
		if err := json.Unmarshal(l.get(t, "query_range", v, 200, ""), &a); err != nil || len(a.Data.Result) != 1 {
			t.Fatalf("%+v: %v", a, err)
		}
		s := a.Data.Result[0]
		if len(s.Stream) != 1 || s.Stream["job"] != "q" || string(s.Values[0][1]) != `"v=17"` || string(s.Values[0][2]) != `{"structuredMetadata":{"kind":"Node"}}` {
			t.Errorf("%v %s", s.Stream, s.Values)
		}
	})
	t.Run("series", func(t *testing.T) {
		var answer struct{ Data []map[string]string }
		if err := json.Unmarshal(l.get(t, "series", url.Values{"match[]": {`{job="q", ns="b"}`}}, 200, ""), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Data) != 1 || len(answer.Data[0]) != 4 || answer.Data[0]["reason"] != "other" {
			t.Errorf("%v", answer.Data)
		}
	})
	t.Run("the name of a service", func(t *testing.T) {
		l.push(t, []stream{{`{job="s", kind="x"}`, []entry{{time.Minute, "x", nil}}}, {`{job="s", component="y"}`, []entry{{time.Minute, "y", nil}}}, {`{other="s"}`, []entry{{time.Minute, "z", nil}}}}, 204, "^$")
		for selector, want := range map[string]string{`{kind="x"}`: "s", `{component="y"}`: "y", `{other="s"}`: "unknown_service"} {
			var answer struct{ Data []map[string]string }
			if err := json.Unmarshal(l.get(t, "series", url.Values{"match[]": {selector}}, 200, ""), &answer); err != nil {
				t.Fatal(err)
			}
			if len(answer.Data) != 1 || answer.Data[0]["service_name"] != want {
				t.Errorf("%s: %v, want the service_name %s", selector, answer.Data, want)
			}
		}
	})
	t.Run("values of a label", func(t *testing.T) {
		var answer struct{ Data []string }
		if err := json.Unmarshal(l.get(t, "label/ns/values", url.Values{"query": {`{job="q"}`}}, 200, ""), &answer); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(answer.Data, []string{"a", "b"}) {
			t.Errorf("%v", answer.Data)
		}
	})
	t.Run("tail", func(t *testing.T) { tail(t, l) })
	t.Run("no such path", func(t *testing.T) { l.get(t, "nothing", nil, http.StatusNotFound, "^404 page not found\n$") })
}

// tail follows a query: entries stored before, and new ones.
func tail(t *testing.T, l loki) {
	u := l.url + "/loki/api/v1/tail?" + url.Values{"query": {`{job="t"} | type="Warning"`}, "start": {ns(time.Minute)}, "limit": {"5000"}}.Encode()
	push := func(n int) {
		t.Helper()
		l.push(t, []stream{{`{job="t", service_name="contract"}`, []entry{
			{30*time.Second - time.Duration(n), fmt.Sprint("normal ", n), map[string]string{"type": "Normal"}},
			{30*time.Second - time.Duration(n), fmt.Sprint("warning ", n), map[string]string{"type": "Warning"}},
		}}}, 204, "^$")
	}
	push(1)
	conn, resp, err := websocket.Dial(t.Context(), u, &websocket.DialOptions{HTTPHeader: http.Header{"X-Loki-Response-Encoding-Flags": {"categorize-labels"}}})
	if err != nil {
		t.Fatalf("%v %v", resp, err)
	}
	defer conn.CloseNow()
	push(2)
	seen := map[string]bool{}
	for !seen["warning 1"] || !seen["warning 2"] {
		_, b, err := conn.Read(t.Context())
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		var message struct {
			Streams []struct {
				Stream map[string]string
				Values [][]json.RawMessage
			}
		}
		if err := json.Unmarshal(b, &message); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		for _, s := range message.Streams {
			for _, v := range s.Values {
				var line string
				if err := json.Unmarshal(v[1], &line); err != nil || len(v) != 3 || !bytes.Contains(v[2], []byte(`"structuredMetadata"`)) || s.Stream["job"] != "t" {
					t.Errorf("message %s: %v", b, err)
				}
				if seen[line] || !strings.HasPrefix(line, "warning ") {
					t.Errorf("%q was sent twice, or should not have been sent", line)
				}
				seen[line] = true
			}
		}
	}
}
