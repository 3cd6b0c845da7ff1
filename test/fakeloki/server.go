// Package fakeloki is a Loki in memory, for tests. It accepts pushes, rejects the same entries as
// Loki in Loki's words, and answers the queries that Hindsight sends: selectors of streams with line
// filters, label filters, logfmt and json, without aggregations. A contract test runs the same
// table of requests against it and, if one is installed, against a real Loki.
//
// Tests observe it with Entries, Pushes and Requests. They let it fail with ScriptPushes, which
// replaces Loki's rules for pushes, and Intercept, which responds to any request. Options.TLS makes it
// an HTTPS server.
//
// It differs from Loki where no test of this project depends on it: it guesses no detected_level,
// it splits no streams, it deletes nothing, and the dot of a regular expression matches line breaks.
package fakeloki

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// Entry is a stored entry.
type Entry struct {
	Time     time.Time
	Line     string
	Labels   map[string]string // of its stream
	Metadata map[string]string // structured
}

// Options of a Server. The zero value is a Loki with its default limits, without tenants.
type Options struct {
	// Auth rejects requests without a tenant. Each tenant has its own entries.
	Auth bool
	// Before3 selects the messages of Loki 2 for rejections of the ingester.
	Before3 bool
	// TLS serves HTTPS with this configuration, unless it is nil.
	TLS *tls.Config
	// Limits are named as in Loki's limits_config; zero is Loki's default.
	Limits Limits
}

// Limits of each tenant. Sizes are in bytes, rates in bytes a second.
type Limits struct {
	IngestionRate, IngestionBurst int           // 4 MB, 6 MB
	PerStreamRate, PerStreamBurst int           // 3 MB, 15 MB
	MaxStreams                    int           // 5000
	MaxLineSize                   int           // 256 KiB
	MaxLabelNames                 int           // 15, without service_name
	RejectOldSamplesMaxAge        time.Duration // 7 days
	CreationGracePeriod           time.Duration // 10 minutes
	MaxStructuredMetadataSize     int           // 64 KiB
	MaxStructuredMetadataEntries  int           // 128
	DisallowStructuredMetadata    bool
	BlockIngestionUntil           time.Time     // rejects all pushes, with the status 260
	MaxEntriesPerQuery            int           // 5000
	MaxQueryLength                time.Duration // 721 hours
	MaxMessageSize                int           // 4 MiB, of an uncompressed push or a response
}

func (l *Limits) setDefaults() {
	for _, f := range []struct {
		value    *int
		standard int
	}{
		{&l.IngestionRate, 4 << 20},
		{&l.IngestionBurst, 6 << 20},
		{&l.PerStreamRate, 3 << 20},
		{&l.PerStreamBurst, 15 << 20},
		{&l.MaxStreams, 5000},
		{&l.MaxLineSize, 256 << 10},
		{&l.MaxLabelNames, 15},
		{&l.MaxStructuredMetadataSize, 64 << 10},
		{&l.MaxStructuredMetadataEntries, 128},
		{&l.MaxEntriesPerQuery, 5000},
		{&l.MaxMessageSize, 4 << 20},
	} {
		*f.value = cmp.Or(*f.value, f.standard)
	}
	l.RejectOldSamplesMaxAge = cmp.Or(l.RejectOldSamplesMaxAge, 7*24*time.Hour)
	l.CreationGracePeriod = cmp.Or(l.CreationGracePeriod, 10*time.Minute)
	l.MaxQueryLength = cmp.Or(l.MaxQueryLength, 721*time.Hour)
}

// Server is a running fake. Its URL is used like that of a Loki.
type Server struct {
	*httptest.Server
	options Options
	ctx     context.Context // of the test

	mu       sync.Mutex // guards the fields below
	tenants  map[string]*tenant
	before   func(http.ResponseWriter, *http.Request) bool
	script   Script
	requests []*http.Request
	pushes   []*Push
	changed  chan struct{} // closed when an entry is stored
}

// tenant holds the streams of a tenant by their labels, as a string.
type tenant struct {
	streams map[string]*stream
	limiter *rate.Limiter
}

type stream struct {
	name    string // its labels as a selector
	labels  map[string]string
	newest  time.Time
	limiter *rate.Limiter
	entries []Entry // in the order of their arrival

	flushed  int       // entries of the chunk that Flush ended
	chunkEnd time.Time // the newest of them
}

// Start runs a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	o.Limits.setDefaults()
	s := &Server{options: o, ctx: t.Context(), tenants: map[string]*tenant{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /loki/api/v1/push", s.push)
	mux.HandleFunc("GET /loki/api/v1/query_range", s.queryRange)
	mux.HandleFunc("GET /loki/api/v1/series", s.series)
	mux.HandleFunc("GET /loki/api/v1/label/{name}/values", s.labelValues)
	mux.HandleFunc("GET /loki/api/v1/tail", s.tail)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		before := s.before
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		if o.Auth && r.Header.Get("X-Scope-OrgID") == "" {
			http.Error(w, "no org id", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	if s.TLS = o.TLS; s.TLS != nil {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
	} else {
		s.Server.Start()
	}
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// Intercept calls f with each request from now on. f returns true for a request that it has
// answered; calls may be concurrent. A nil f ends the interception.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Store adds entries to the tenant of a Loki without authentication, without regard to limits.
func (s *Server) Store(entries ...Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		st := s.tenant("fake").stream(e.Labels, &s.options.Limits)
		st.entries = append(st.entries, e)
	}
	s.notify()
}

// Clear removes the entries of all tenants, and the pushes and requests received so far.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tenants)
	s.pushes, s.requests = nil, nil
}

// Entries returns the entries of all tenants in the order of their times.
func (s *Server) Entries() (all []Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.tenants)) {
		for _, st := range s.tenants[name].sorted() {
			all = append(all, st.entries...)
		}
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return all
}

// notify wakes the tails. s.mu is held.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// tenantOf returns the tenant of a request. s.mu is held.
func (s *Server) tenantOf(r *http.Request) (string, *tenant) {
	name := "fake"
	if s.options.Auth {
		name = r.Header.Get("X-Scope-OrgID")
	}
	return name, s.tenant(name)
}

func (s *Server) tenant(name string) *tenant {
	t := s.tenants[name]
	if t == nil {
		l := &s.options.Limits
		t = &tenant{streams: map[string]*stream{}, limiter: rate.NewLimiter(rate.Limit(l.IngestionRate), l.IngestionBurst)}
		s.tenants[name] = t
	}
	return t
}

func (t *tenant) stream(labels map[string]string, l *Limits) *stream {
	name := selector(labels)
	st := t.streams[name]
	if st == nil {
		st = &stream{name: name, labels: labels, limiter: rate.NewLimiter(rate.Limit(l.PerStreamRate), l.PerStreamBurst)}
		t.streams[name] = st
	}
	return st
}

func (t *tenant) sorted() (all []*stream) {
	for _, name := range slices.Sorted(maps.Keys(t.streams)) {
		all = append(all, t.streams[name])
	}
	return all
}

// selector writes labels as Loki does in its answers.
func selector(labels map[string]string) string {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = fmt.Appendf(b, "%s=%q", name, labels[name])
	}
	return string(append(b, '}'))
}

// fail answers as Loki does: plain text.
func fail(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf(format, args...)+"\n")
}
