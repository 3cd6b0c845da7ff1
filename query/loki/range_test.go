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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/event/format"
)

// scripted is a Loki that holds entries, with its limits.
type scripted struct {
	times    []int64 // of its entries, in order; an entry's line is its number
	most     int     // entries a query may ask for
	longest  time.Duration
	chunk    int    // entries in the first chunk; its end counts in milliseconds
	heaviest int    // entries that an answer may hold: more close the connection
	pad      string // of each line, behind its number

	mu      sync.Mutex // guards queries: the transport may repeat a request
	queries []url.Values
	before  func(w http.ResponseWriter) bool // answers by itself if it returns true
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	s.queries = append(s.queries, q)
	s.mu.Unlock()
	if s.before != nil && s.before(w) {
		return
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		return n
	}
	start, end, limit := number("start"), number("end"), int(number("limit"))
	if limit > s.most {
		http.Error(w, "max entries limit per query exceeded, limit > max_entries_limit_per_query", http.StatusBadRequest)
		return
	}
	if s.longest > 0 && time.Duration(end-start) > s.longest {
		http.Error(w, "the query time range exceeds the limit (query length: 720h0m0s, limit: 24h)", http.StatusBadRequest)
		return
	}
	var found []int
	first, _ := slices.BinarySearch(s.times, start)
	for i, at := range s.times[first:] {
		i += first
		if at >= end {
			break
		}
		if i < s.chunk && start/1e6 >= s.times[s.chunk-1]/1e6 {
			continue // the chunk is left out
		}
		found = append(found, i)
	}
	if q.Get("direction") == "backward" {
		slices.Reverse(found)
	}
	found = found[:min(limit, len(found))]
	if s.heaviest > 0 && len(found) > s.heaviest {
		panic(http.ErrAbortHandler)
	}
	// Two streams, so that the client has to merge them.
	var streams [2]struct {
		Stream map[string]string `json:"stream"`
		Values [][]any           `json:"values"`
	}
	for i := range streams {
		streams[i].Stream = map[string]string{"s": fmt.Sprint(i)}
	}
	for _, i := range found {
		v := []any{strconv.FormatInt(s.times[i], 10), fmt.Sprint(i) + s.pad, map[string]any{"structuredMetadata": map[string]string{"i": fmt.Sprint(i)}}}
		streams[i%2].Values = append(streams[i%2].Values, v)
	}
	json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "streams", "result": streams}})
}

func (s *scripted) asked() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

func client(t *testing.T, h http.Handler) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{URL: u, TenantID: "a", HTTP: config.DefaultHTTPClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var everything = struct{ from, to time.Time }{time.Unix(0, 1e6+1).UTC(), time.Unix(1_000_000, 0).UTC()}

// Whatever the times of entries are and whatever Loki's limits are, each is
// visited once and in order.
func TestRangeVisitsAllOnce(t *testing.T) {
	times := func(n int, at func(i int) int64) (all []int64) {
		for i := range n {
			all = append(all, at(i))
		}
		return all
	}
	for name, s := range map[string]*scripted{
		"nothing":                               {},
		"one page":                              {times: times(10, func(i int) int64 { return 2e6 + int64(i) })},
		"exactly one page":                      {times: times(firstPage, func(i int) int64 { return 2e6 + int64(i) })},
		"several pages":                         {times: times(3500, func(i int) int64 { return int64(i+1) * 1e9 })},
		"ties at every border":                  {times: times(3500, func(i int) int64 { return int64(i/7+1) * 1e9 })},
		"more ties than a page has":             {times: times(4000, func(i int) int64 { return int64(i/2500+1) * 1e9 })},
		"more in a millisecond than a page has": {times: times(2000, func(i int) int64 { return 5e9 + int64(i) }), chunk: 1800, most: 300},
		"a chunk ends at a border":              {times: times(3000, func(i int) int64 { return int64(i/1500+1)*1e9 + int64(i) }), chunk: 1500},
		"a chunk ends where the range begins":   {times: times(10, func(i int) int64 { return everything.from.UnixNano() + int64(i) }), chunk: 10},
		"Loki allows few entries":               {times: times(3500, func(i int) int64 { return 2e6 + int64(i/3) }), most: 100},
		"answers must be small":                 {times: times(2000, func(i int) int64 { return 2e6 + int64(i/3) }), heaviest: 40},
		"Loki allows short ranges":              {times: times(500, func(i int) int64 { return int64(i+1) * 2000 * 1e9 }), longest: 24 * time.Hour},
		"ranges longer than a window":           {times: times(100, func(i int) int64 { return int64(i+1) * 9000 * 1e9 })},
		"ties at the border of ranges":          {times: times(100, func(int) int64 { return everything.from.Add(window).UnixNano() })},
	} {
		if s.most == 0 {
			s.most = mostPage
		}
		for _, d := range []Direction{Forward, Backward} {
			t.Run(name+", "+string(d), func(t *testing.T) {
				to := everything.to
				if strings.Contains(name, "ranges") {
					to = everything.from.Add(3*window + 1)
				}
				var got []int
				var last time.Time
				err := client(t, s).Range(t.Context(), `{a="b"}`, everything.from, to, d, func(e format.Entry) error {
					i, err := strconv.Atoi(e.Line)
					if err != nil || e.Metadata["i"] != e.Line || e.Labels["s"] != fmt.Sprint(i%2) {
						t.Fatalf("entry %+v: %v", e, err)
					}
					if !last.IsZero() && (d == Forward && e.Time.Before(last) || d == Backward && e.Time.After(last)) {
						t.Errorf("%s comes after %s", e.Time, last)
					}
					last = e.Time
					got = append(got, i)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if n := len(slices.Compact(slices.Clone(got))); len(got) != len(s.times) || n != len(got) {
					t.Errorf("%d entries were visited, %d different ones, of %d", len(got), n, len(s.times))
				}
				for _, q := range s.asked() {
					if n, _ := strconv.Atoi(q.Get("limit")); n > mostPage {
						t.Errorf("a page of %d is asked for", n)
					}
				}
			})
		}
	}
}

func TestMoreTiesThanAnyPageHolds(t *testing.T) {
	s := &scripted{most: mostPage}
	for range mostPage + 10 {
		s.times = append(s.times, 1e9)
	}
	err := client(t, s).Range(t.Context(), "{}", everything.from, everything.to, Forward, func(format.Entry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "of the time 1970-01-01T00:00:01Z") {
		t.Errorf("got %v", err)
	}
}

func TestVisitorEndsTheRange(t *testing.T) {
	s := &scripted{most: mostPage, times: []int64{2e6, 3e6, 4e6}}
	enough := errors.New("enough")
	n := 0
	err := client(t, s).Range(t.Context(), "{}", everything.from, everything.to, Forward, func(format.Entry) error {
		if n++; n == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 2 {
		t.Errorf("%d entries, %v", n, err)
	}
}

func TestErrorsAreClear(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
		tries  int
	}{
		"no tenant":         {401, "no org id\n", "answers 401: no org id; it has tenants: say which one is meant", 1},
		"wrong password":    {401, "", "answers 401; check credentials and tenant", 1},
		"a gateway's page":  {403, "<html>no</html>", "answers 403; check credentials and tenant", 1},
		"no Loki":           {404, "404 page not found\n", "answers 404: 404 page not found; the address must be the one in front of /loki/api/v1", 1},
		"a bad query":       {400, "parse error at line 1,\n col 5", "answers 400: parse error at line 1, col 5", 1},
		"it fails and goes": {500, "boom", "answers 500: boom", 8},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{before: func(w http.ResponseWriter) bool {
				http.Error(w, strings.TrimSuffix(c.body, "\n"), c.status)
				return true
			}}
			err := client(t, s).Range(t.Context(), "{}", everything.from, everything.to, Forward, func(format.Entry) error { return nil })
			if err == nil || !strings.HasSuffix(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "loki at http://127.0.0.1:") {
				t.Errorf("%v, want … %s", err, c.want)
			}
			if tries := len(s.asked()); tries != c.tries {
				t.Errorf("%d tries, want %d", tries, c.tries)
			}
		})
	}
	t.Run("not JSON", func(t *testing.T) {
		s := &scripted{before: func(w http.ResponseWriter) bool { w.Write([]byte("<html>")); return true }}
		err := client(t, s).Range(t.Context(), "{}", everything.from, everything.to, Forward, func(format.Entry) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "does not answer as Loki does") {
			t.Error(err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		s := httptest.NewServer(http.NotFoundHandler())
		s.Close()
		u, _ := url.Parse(strings.Replace(s.URL, "http://", "http://user:secret@", 1))
		c, err := New(Config{URL: u, HTTP: config.DefaultHTTPClientConfig})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Streams(t.Context(), "{}", everything.from, everything.to)
		if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &scripted{before: func(w http.ResponseWriter) bool { cancel(); <-ctx.Done(); http.Error(w, "", 500); return true }}
		err := client(t, s).Range(ctx, "{}", everything.from, everything.to, Forward, func(format.Entry) error { return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Pages get smaller where lines are long, so that no answer is near 4 MiB.
func TestPagesFitTheirLines(t *testing.T) {
	const size = 10 << 10
	s := &scripted{most: mostPage, pad: strings.Repeat(" ", size)}
	for i := range 2000 {
		s.times = append(s.times, 2e6+int64(i)*1e6)
	}
	s.heaviest = firstPage // this many answer, so that the size is learned
	n := 0
	err := client(t, s).Range(t.Context(), "{}", everything.from, everything.to, Forward, func(format.Entry) error { n++; return nil })
	if err != nil || n != len(s.times) {
		t.Errorf("%d entries, %v", n, err)
	}
	for _, q := range s.asked()[1:] {
		if limit, _ := strconv.Atoi(q.Get("limit")); limit*size > pageBytes {
			t.Errorf("a page of %d lines of 10 KiB is asked for", limit)
		}
	}
}

// Thousands of entries of one millisecond, as of a burst of one second, are read
// in about as many queries as there are pages, and no more than three at a time.
func TestBurstsNeedFewQueries(t *testing.T) {
	const seconds, each = 8, 3600
	s := &scripted{most: mostPage}
	for i := range seconds * each {
		s.times = append(s.times, int64(i/each+100)*1e9+int64(i%each))
	}
	var running, most atomic.Int32
	s.before = func(http.ResponseWriter) bool {
		for n := running.Add(1); ; {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				return false
			}
		}
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		s.ServeHTTP(answer, r)
		running.Add(-1) // before the client can know
		w.Write(answer.Body.Bytes())
	})
	for _, d := range []Direction{Forward, Backward} {
		s.queries = nil
		n := 0
		if err := client(t, h).Range(t.Context(), "{}", everything.from, everything.to, d, func(format.Entry) error { n++; return nil }); err != nil || n != len(s.times) {
			t.Fatalf("%s: %d entries, %v", d, n, err)
		}
		if asked, bound := len(s.asked()), 3*len(s.times)/mostPage+15; asked > bound {
			t.Errorf("%s: %d queries for %d entries, want at most %d", d, asked, n, bound)
		}
	}
	if most.Load() > inFlight+1 {
		t.Errorf("%d queries at a time", most.Load())
	}
}

// A server that ignores the range is an error, not an endless search.
func TestAnswersOutsideOfTheRange(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values := [][]any{{strconv.FormatInt(everything.to.UnixNano(), 10), "a", map[string]any{}}}
		json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "streams", "result": []any{
			map[string]any{"stream": map[string]string{}, "values": values},
		}}})
	})
	err := client(t, h).Range(t.Context(), "{}", everything.from, everything.to, Forward, func(format.Entry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "which is not before the end of the query") {
		t.Error(err)
	}
}
