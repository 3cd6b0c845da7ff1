package fakeloki

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// request holds the parameters of a query.
type request struct {
	query      *query
	start, end time.Time
	limit      int
	backward   bool
	apart      bool // the client asked for structured metadata apart from labels
	tenant     string
}

// parse reads the parameters of a query; the parameter with the given name is the query. If it
// rejects them, it answers the request and returns false.
func (s *Server) parse(w http.ResponseWriter, r *http.Request, name string) (q request, ok bool) {
	bad := func(format string, args ...any) (request, bool) {
		fail(w, http.StatusBadRequest, format, args...)
		return request{}, false
	}
	v := r.URL.Query()
	q.end = time.Now()
	q.start = q.end.Add(-time.Hour)
	q.limit = 100
	for name, at := range map[string]*time.Time{"start": &q.start, "end": &q.end} {
		text := v.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return bad("%v", err)
		}
		if *at = time.Unix(0, n); len(text) <= 10 {
			*at = time.Unix(n, 0)
		}
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return bad("limit must be a positive value")
		}
		q.limit = n
	}
	if name != "" {
		var err error
		if q.query, err = parseQuery(v.Get(name)); err != nil {
			return bad("%v", err)
		}
	}
	q.backward = v.Get("direction") != "forward"
	q.apart = strings.Contains(r.Header.Get("X-Loki-Response-Encoding-Flags"), "categorize-labels")
	s.mu.Lock()
	q.tenant, _ = s.tenantOf(r)
	s.mu.Unlock()
	return q, true
}

// queryRange answers with entries from the start to before the end.
func (s *Server) queryRange(w http.ResponseWriter, r *http.Request) {
	q, ok := s.parse(w, r, "query")
	l := &s.options.Limits
	switch {
	case !ok:
		return
	case !q.end.After(q.start):
		fail(w, http.StatusBadRequest, "end timestamp must not be before or equal to start time")
		return
	case q.limit > l.MaxEntriesPerQuery:
		fail(w, http.StatusBadRequest, "max entries limit per query exceeded, limit > max_entries_limit_per_query (%d > %d)", q.limit, l.MaxEntriesPerQuery)
		return
	case q.end.Sub(q.start) > l.MaxQueryLength:
		fail(w, http.StatusBadRequest, "the query time range exceeds the limit (query length: %s, limit: %s)", q.end.Sub(q.start), l.MaxQueryLength)
		return
	}
	found := s.find(q)
	slices.SortStableFunc(found, func(a, b Entry) int {
		if q.backward {
			a, b = b, a
		}
		return a.Time.Compare(b.Time)
	})
	found = found[:min(len(found), q.limit)]
	s.answer(w, map[string]any{"resultType": "streams", "result": q.encode(found)})
}

// find returns the entries that a query selects, in the order of streams and arrival.
func (s *Server) find(q request) (found []Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.tenant(q.tenant).sorted() {
		if !q.query.selects(st.labels) {
			continue
		}
		for i, e := range st.entries {
			if i < st.flushed && q.start.UnixMilli() >= st.chunkEnd.UnixMilli() {
				continue
			}
			if e.Time.Before(q.start) || !e.Time.Before(q.end) {
				continue
			}
			if e, ok := q.query.apply(e); ok {
				found = append(found, e)
			}
		}
	}
	return found
}

type streamJSON struct {
	Stream map[string]string `json:"stream"`
	Values [][]any           `json:"values"`
}

// encode groups entries by stream; by structured metadata as well, unless these are apart.
func (q *request) encode(entries []Entry) []*streamJSON {
	all := []*streamJSON{}
	byName := map[string]*streamJSON{}
	for _, e := range entries {
		set := maps.Clone(e.Labels)
		value := []any{strconv.FormatInt(e.Time.UnixNano(), 10), e.Line}
		if q.apart {
			apart := map[string]any{}
			if len(e.Metadata) > 0 {
				apart["structuredMetadata"] = e.Metadata
			}
			value = append(value, apart)
		} else {
			maps.Copy(set, e.Metadata)
		}
		name := selector(set)
		st := byName[name]
		if st == nil {
			st = &streamJSON{Stream: set}
			byName[name] = st
			all = append(all, st)
		}
		st.Values = append(st.Values, value)
	}
	return all
}

// series answers with the labels of streams that have entries in the range.
func (s *Server) series(w http.ResponseWriter, r *http.Request) {
	if q, ok := s.parse(w, r, "match[]"); ok {
		s.answer(w, s.streams(q))
	}
}

func (s *Server) labelValues(w http.ResponseWriter, r *http.Request) {
	if q, ok := s.parse(w, r, "query"); ok {
		values := map[string]bool{}
		for _, labels := range s.streams(q) {
			if value, ok := labels[r.PathValue("name")]; ok {
				values[value] = true
			}
		}
		s.answer(w, slices.Sorted(maps.Keys(values)))
	}
}

func (s *Server) streams(q request) []map[string]string {
	all := []map[string]string{}
	seen := map[string]bool{}
	for _, e := range s.find(q) {
		if name := selector(e.Labels); !seen[name] {
			seen[name] = true
			all = append(all, e.Labels)
		}
	}
	return all
}

// answer writes data. It closes the connection if data is larger than a message between Loki's
// components may be.
func (s *Server) answer(w http.ResponseWriter, data any) {
	b, err := json.Marshal(map[string]any{"status": "success", "data": data})
	if err != nil {
		fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	if len(b) > s.options.Limits.MaxMessageSize {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_, _ = w.Write(b)
}

// tail sends entries over a websocket: those since the start, then new ones.
func (s *Server) tail(w http.ResponseWriter, r *http.Request) {
	q, ok := s.parse(w, r, "query")
	if !ok {
		return
	}
	q.end = time.Unix(1<<40, 0)
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(r.Context())
	sent := map[string]int{} // entries of each kind
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		var fresh []Entry
		count := map[string]int{}
		for _, e := range s.find(q) {
			key := fmt.Sprintf("%d %s %s %q", e.Time.UnixNano(), selector(e.Labels), selector(e.Metadata), e.Line)
			if count[key]++; count[key] > sent[key] {
				sent[key]++
				fresh = append(fresh, e)
			}
		}
		if len(fresh) > 0 && send(ctx, conn, map[string]any{"streams": q.encode(fresh)}) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func send(ctx context.Context, conn *websocket.Conn, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, b)
}
