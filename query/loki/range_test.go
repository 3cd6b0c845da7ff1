package loki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// base is the time, in nanoseconds, from which tests count.
const base = 1_700_000_000_000_000_000

// from and to enclose the entries of tests.
var (
	from = time.Unix(0, base+1e6+1).UTC()
	to   = time.Unix(0, base+1e15).UTC()
)

const selector = `{job="test"}`

// store stores entries at these nanoseconds after base, in two streams, so that the client has to
// merge them. The line of an entry is its number, and pad.
func store(l *fakeloki.Server, first int, pad string, times ...int64) {
	entries := make([]fakeloki.Entry, len(times))
	for i, at := range times {
		number := strconv.Itoa(first + i)
		entries[i] = fakeloki.Entry{
			Time: time.Unix(0, base+at), Line: number + pad, Metadata: map[string]string{"i": number},
			Labels: map[string]string{"job": "test", "s": strconv.Itoa((first + i) % 2)},
		}
	}
	l.Store(entries...)
}

func clientOf(t *testing.T, address string) *Client {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{URL: u, TenantID: "a", HTTP: config.DefaultHTTPClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// count reads the whole range and returns the number of entries.
func count(ctx context.Context, c *Client, d Direction) (n int, err error) {
	err = c.Range(ctx, selector, from, to, d, func(format.Entry) error { n++; return nil })
	return n, err
}

// queries returns the parameters of all queries that a server received.
func queries(l *fakeloki.Server) (all []url.Values) {
	for _, r := range l.Requests() {
		all = append(all, r.URL.Query())
	}
	return all
}

// TestRange checks that each entry is visited once and in order, for any distribution of times and
// any limits of Loki.
func TestRange(t *testing.T) {
	t.Parallel()
	times := func(n int, at func(i int) int64) (all []int64) {
		for i := range n {
			all = append(all, at(i))
		}
		return all
	}
	for name, c := range map[string]struct {
		times  []int64
		limits fakeloki.Limits
		chunk  int // entries in chunks that have ended
		to     time.Time
	}{
		"empty":                                  {},
		"one page":                               {times: times(10, func(i int) int64 { return 2e6 + int64(i) })},
		"exactly one page":                       {times: times(firstPage, func(i int) int64 { return 2e6 + int64(i) })},
		"several pages":                          {times: times(3500, func(i int) int64 { return int64(i+1) * 1e9 })},
		"ties at every page border":              {times: times(3500, func(i int) int64 { return int64(i/7+1) * 1e9 })},
		"more ties than fit into a page":         {times: times(4000, func(i int) int64 { return int64(i/2500+1) * 1e9 })},
		"a millisecond does not fit into a page": {times: times(2000, func(i int) int64 { return 5e9 + int64(i) }), chunk: 1800, limits: fakeloki.Limits{MaxEntriesPerQuery: 300}},
		"a chunk ends at a page border":          {times: times(3000, func(i int) int64 { return int64(i/1500+1)*1e9 + int64(i) }), chunk: 1500},
		"a chunk ends where the range begins":    {times: times(10, func(i int) int64 { return 1e6 + 1 + int64(i) }), chunk: 10},
		"low max_entries_limit_per_query":        {times: times(3500, func(i int) int64 { return 2e6 + int64(i/3) }), limits: fakeloki.Limits{MaxEntriesPerQuery: 100}},
		"low maximum message size":               {times: times(2000, func(i int) int64 { return 2e6 + int64(i/3) }), limits: fakeloki.Limits{MaxMessageSize: 3 << 10}},
		"low max_query_length":                   {times: times(500, func(i int) int64 { return int64(i+1) * 2000 * 1e9 }), limits: fakeloki.Limits{MaxQueryLength: 24 * time.Hour}, to: from.Add(3*window + 1)},
		"several windows":                        {times: times(100, func(i int) int64 { return int64(i+1) * 9000 * 1e9 }), to: from.Add(3*window + 1)},
		"ties at the border of windows":          {times: times(100, func(int) int64 { return 1e6 + 1 + int64(window) }), to: from.Add(3*window + 1)},
	} {
		if c.to.IsZero() {
			c.to = to
		}
		for _, d := range []Direction{Forward, Backward} {
			t.Run(name+", "+string(d), func(t *testing.T) {
				t.Parallel()
				l := fakeloki.Start(t, fakeloki.Options{Limits: c.limits})
				store(l, 0, "", c.times[:c.chunk]...)
				l.Flush()
				store(l, c.chunk, "", c.times[c.chunk:]...)
				var got []int
				var last time.Time
				err := clientOf(t, l.URL).Range(t.Context(), selector, from, c.to, d, func(e format.Entry) error {
					i, err := strconv.Atoi(e.Line)
					if err != nil || e.Metadata["i"] != e.Line || e.Labels["s"] != fmt.Sprint(i%2) {
						t.Fatalf("entry %+v: %v", e, err)
					}
					if !last.IsZero() && (d == Forward && e.Time.Before(last) || d == Backward && e.Time.After(last)) {
						t.Errorf("%s was visited after %s", e.Time, last)
					}
					last = e.Time
					got = append(got, i)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if n := len(slices.Compact(slices.Clone(got))); len(got) != len(c.times) || n != len(got) {
					t.Errorf("%d entries were visited, %d distinct, want %d", len(got), n, len(c.times))
				}
				for _, q := range queries(l) {
					if n, _ := strconv.Atoi(q.Get("limit")); n > maxPage {
						t.Errorf("a query has the limit %d", n)
					}
				}
			})
		}
	}
}

func TestRangeMoreTiesThanAnyPageHolds(t *testing.T) {
	t.Parallel()
	l := fakeloki.Start(t, fakeloki.Options{})
	store(l, 0, "", slices.Repeat([]int64{1e9}, maxPage+10)...)
	_, err := count(t.Context(), clientOf(t, l.URL), Forward)
	if err == nil || !strings.Contains(err.Error(), "have the time 2023-11-14T22:13:21Z, which no page can hold") {
		t.Errorf("got %v", err)
	}
}

func TestVisitorErrorEndsRange(t *testing.T) {
	t.Parallel()
	l := fakeloki.Start(t, fakeloki.Options{})
	store(l, 0, "", 2e6, 3e6, 4e6)
	enough := errors.New("enough")
	n := 0
	err := clientOf(t, l.URL).Range(t.Context(), selector, from, to, Forward, func(format.Entry) error {
		if n++; n == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 2 {
		t.Errorf("%d entries, %v", n, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status   int
		body     string
		want     string
		requests int
	}{
		"tenant missing":         {401, "no org id\n", "responded 401: no org id; it is multi-tenant: name a tenant", 1},
		"wrong password":         {401, "", "responded 401; check credentials and tenant", 1},
		"page of a gateway":      {403, "<html>no</html>", "responded 403; check credentials and tenant", 1},
		"not Loki":               {404, "404 page not found\n", "responded 404: 404 page not found; the URL must not include /loki/api/v1", 1},
		"invalid query":          {400, "parse error at line 1,\ncol 5", "responded 400: parse error at line 1, col 5", 1},
		"server error, retried":  {500, "boom", "responded 500: boom", 8},
		"success without a JSON": {200, "<html>", "is not Loki's: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := fakeloki.Start(t, fakeloki.Options{})
			l.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
				return true
			})
			_, err := count(t.Context(), clientOf(t, l.URL), Forward)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), l.URL) {
				t.Errorf("%v, want … %s", err, c.want)
			}
			if n := len(l.Requests()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(http.NotFoundHandler())
		s.Close()
		c := clientOf(t, strings.Replace(s.URL, "http://", "http://user:secret@", 1))
		_, err := c.Streams(t.Context(), selector, from, to)
		if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	})
	t.Run("context ends", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		l := fakeloki.Start(t, fakeloki.Options{})
		l.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			cancel()
			http.Error(w, "", http.StatusInternalServerError)
			return true
		})
		if _, err := count(ctx, clientOf(t, l.URL), Forward); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestHas(t *testing.T) {
	t.Parallel()
	l := fakeloki.Start(t, fakeloki.Options{Auth: true})
	l.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		if user != "user" || password != "secret" || r.Header.Get("X-Scope-OrgID") != "a" {
			http.Error(w, "wrong", http.StatusUnauthorized)
			return true
		}
		r.Header.Set("X-Scope-OrgID", "fake") // the tenant of Store
		return false
	})
	store(l, 0, "", 2e6)
	u, _ := url.Parse(strings.Replace(l.URL, "http://", "http://user:secret@", 1))
	settings := config.DefaultHTTPClientConfig
	settings.Authorization = &config.Authorization{Type: "Bearer", Credentials: "other"}
	c, err := New(Config{URL: u, TenantID: "a", HTTP: settings})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		to   time.Time
		want bool
	}{{time.Unix(0, base+2e6), false}, {time.Unix(0, base+2e6+1), true}} {
		if found, err := c.Has(t.Context(), selector, from, test.to); found != test.want || err != nil {
			t.Errorf("to %s: %v, %v", test.to, found, err)
		}
	}
	l.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "boom", http.StatusInternalServerError)
		return true
	})
	l.Clear()
	var response *Error
	if _, err := c.Has(t.Context(), selector, from, to); !errors.As(err, &response) || response.Status != 500 || len(l.Requests()) != 1 {
		t.Errorf("%v after %d requests, want one", err, len(l.Requests()))
	}
}

// TestPagesFitTheirLines checks that pages have fewer entries where lines are long, so that
// responses stay below 4 MiB.
func TestPagesFitTheirLines(t *testing.T) {
	t.Parallel()
	const size = 10 << 10
	l := fakeloki.Start(t, fakeloki.Options{Limits: fakeloki.Limits{MaxMessageSize: (firstPage + 1) * (size + 200)}})
	times := make([]int64, 2000)
	for i := range times {
		times[i] = 2e6 + int64(i)*1e6
	}
	store(l, 0, strings.Repeat(" ", size), times...)
	if n, err := count(t.Context(), clientOf(t, l.URL), Forward); err != nil || n != len(times) {
		t.Errorf("%d entries, %v", n, err)
	}
	for _, q := range queries(l)[1:] { // the first page shows the size of lines
		if limit, _ := strconv.Atoi(q.Get("limit")); limit*size > pageBytes {
			t.Errorf("a query for lines of 10 KiB has the limit %d", limit)
		}
	}
}

// TestBurstsNeedFewQueries checks that thousands of entries within a second need about as many
// queries as there are pages, and that few queries run at the same time.
func TestBurstsNeedFewQueries(t *testing.T) {
	t.Parallel()
	const seconds, each = 8, 3600
	times := make([]int64, seconds*each)
	for i := range times {
		times[i] = int64(i/each+100)*1e9 + int64(i%each)
	}
	l := fakeloki.Start(t, fakeloki.Options{})
	store(l, 0, "", times...)
	var running, most atomic.Int32
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		response := httptest.NewRecorder()
		l.Config.Handler.ServeHTTP(response, r)
		running.Add(-1) // before the client receives it
		_, _ = w.Write(response.Body.Bytes())
	}))
	defer counting.Close()
	c := clientOf(t, counting.URL)
	for _, d := range []Direction{Forward, Backward} {
		before := len(l.Requests())
		if n, err := count(t.Context(), c, d); err != nil || n != len(times) {
			t.Fatalf("%s: %d entries, %v", d, n, err)
		}
		if n, bound := len(l.Requests())-before, 3*len(times)/maxPage+15; n > bound {
			t.Errorf("%s: %d queries for %d entries, want at most %d", d, n, len(times), bound)
		}
	}
	if most.Load() > maxQueries+1 {
		t.Errorf("%d queries at the same time", most.Load())
	}
}

// TestEntryOutsideRange checks that a server that ignores the range causes an error, not an endless
// loop.
func TestEntryOutsideRange(t *testing.T) {
	t.Parallel()
	l := fakeloki.Start(t, fakeloki.Options{})
	l.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		values := [][]any{{nanos(to), "a", map[string]any{}}}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "streams", "result": []any{
			map[string]any{"stream": map[string]string{}, "values": values},
		}}})
		return true
	})
	_, err := count(t.Context(), clientOf(t, l.URL), Forward)
	if err == nil || !strings.Contains(err.Error(), "which is not before the end of the query") {
		t.Error(err)
	}
}
