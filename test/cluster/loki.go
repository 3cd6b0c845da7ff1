package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// LokiOptions of a Loki.
type LokiOptions struct {
	// Dir holds all data, the configuration and the log. It is created if need
	// be, and left in place.
	Dir string
	// Limits are the limits_config of all tenants, over the defaults of Loki.
	Limits map[string]any
	// Auth makes Loki refuse requests without a tenant.
	Auth bool
}

// Loki is a real Loki in single-binary mode, listening on a loopback port. Pushed entries can be
// queried at once. The methods that start and stop it must not be called concurrently; the others
// are safe for concurrent use.
type Loki struct {
	// Tenant is the one that the queries are for, if LokiOptions.Auth is set.
	Tenant string

	opts    LokiOptions
	url     string
	grpc    int
	process *component
}

// StartLoki starts the Loki that FindLoki finds, and returns when it takes pushes
// (in a second or two). ctx bounds the start, not Loki's life.
func StartLoki(ctx context.Context, o LokiOptions) (*Loki, error) {
	l, err := NewLoki(ctx, o)
	if err == nil {
		err = l.Start(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start a Loki: %w", err)
	}
	return l, nil
}

// NewLoki is StartLoki without the start: the address is known, and nothing
// answers there.
func NewLoki(ctx context.Context, o LokiOptions) (*Loki, error) {
	if o.Dir == "" {
		return nil, errors.New("no directory given")
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if strings.Contains(o.Dir, ",") {
		return nil, fmt.Errorf("%s: a comma separates files in Loki's -config.file", o.Dir)
	}
	found, err := FindLoki(ctx)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	l := &Loki{opts: o, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	if l.grpc, err = FreePort(); err != nil {
		return nil, err
	}
	l.process = &component{
		name:    "loki",
		binary:  found.Path,
		dir:     o.Dir, // Loki 3 writes chunks here, not in chunks_directory
		logPath: filepath.Join(o.Dir, "loki.log"),
		args:    []string{"-config.file", filepath.Join(o.Dir, "loki.yaml")},
		ready:   l.ready,
	}
	return l, nil
}

// LokiForTest starts a Loki that ends with the test. Without a Loki on the machine
// the test is skipped, or fails: see NeedLoki. An empty Dir is a folder that the
// test removes. If the test fails, it logs how Loki's output ends.
func LokiForTest(t testing.TB, o LokiOptions) *Loki {
	t.Helper()
	l := StoppedLokiForTest(t, o)
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// StoppedLokiForTest is LokiForTest without the start.
func StoppedLokiForTest(t testing.TB, o LokiOptions) *Loki {
	t.Helper()
	NeedLoki(t)
	if o.Dir == "" {
		o.Dir = tempDir(t, "loki-*")
	}
	l, err := NewLoki(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	l.process.endWith(t)
	return l
}

// URL is Loki's address, without a path.
func (l *Loki) URL() string { return l.url }

// Name is "Loki".
func (l *Loki) Name() string { return "Loki" }

// SinkURL is the url of a loki sink.
func (l *Loki) SinkURL() string { return l.url }

// Start starts Loki again, at the same address with its data.
func (l *Loki) Start(ctx context.Context) error {
	if err := l.configure(); err != nil {
		return fmt.Errorf("configure loki: %w", err)
	}
	return l.process.start(ctx)
}

// Kill ends Loki with SIGKILL. The pushes that it has accepted are in its
// write-ahead log.
func (l *Loki) Kill() { l.process.kill() }

// PID of the running process.
func (l *Loki) PID() int { return l.process.process.PID() }

// Pause stops Loki with SIGSTOP: its connections stay open and it answers
// nothing.
func (l *Loki) Pause() error { return l.process.pause() }

// Resume ends a pause.
func (l *Loki) Resume() error { return l.process.resume() }

// SetLimits replaces the limits for the next Start.
func (l *Loki) SetLimits(limits map[string]any) { l.opts.Limits = limits }

// configure writes the configuration. The message size limits are the defaults, which clients
// have to handle.
func (l *Loki) configure() error {
	u, err := url.Parse(l.url)
	if err != nil {
		return err
	}
	limits := map[string]any{}
	maps.Copy(limits, l.opts.Limits)
	path := func(name string) string { return filepath.Join(l.opts.Dir, name) }
	config, err := yaml.Marshal(map[string]any{
		"auth_enabled": l.opts.Auth,
		"server": map[string]any{
			"http_listen_address": u.Hostname(), "http_listen_port": json.Number(u.Port()),
			"grpc_listen_address": u.Hostname(), "grpc_listen_port": l.grpc,
			"log_level": "warn",
		},
		"common": map[string]any{
			"instance_addr": u.Hostname(), "path_prefix": l.opts.Dir, "replication_factor": 1,
			"storage": map[string]any{"filesystem": map[string]any{
				"chunks_directory": path("chunks"), "rules_directory": path("rules"),
			}},
			"ring": map[string]any{"kvstore": map[string]any{"store": "inmemory"}},
		},
		"schema_config": map[string]any{"configs": []any{map[string]any{
			"from": "2020-01-01", "store": "tsdb", "object_store": "filesystem", "schema": "v13",
			"index": map[string]any{"prefix": "index_", "period": "24h"},
		}}},
		// Ready and queryable at once:
		"ingester":        map[string]any{"lifecycler": map[string]any{"min_ready_duration": "0s"}},
		"frontend":        map[string]any{"scheduler_dns_lookup_period": "200ms"},
		"frontend_worker": map[string]any{"dns_lookup_duration": "200ms"},
		"querier":         map[string]any{"query_ingesters_within": 0},
		"limits_config":   limits,
		"analytics":       map[string]any{"reporting_enabled": false},
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.opts.Dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(path("loki.yaml"), config, 0o644)
}

// storeHTTP opens a connection for each request: a kept one may lead to a process
// that has been restarted since.
var storeHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (l *Loki) ready(ctx context.Context) error {
	_, err := l.do(ctx, http.MethodGet, "/ready", nil)
	return err
}

// Flush makes Loki flush its chunks.
func (l *Loki) Flush(ctx context.Context) error {
	if _, err := l.do(ctx, http.MethodPost, "/flush", nil); err != nil {
		return fmt.Errorf("flush loki: %w", err)
	}
	return nil
}

func (l *Loki) do(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	address := l.url + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	if l.Tenant != "" {
		req.Header.Set("X-Scope-OrgID", l.Tenant)
	}
	// Structured metadata apart from the labels of the stream.
	req.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	resp, err := storeHTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, &lokiError{resp.StatusCode, strings.TrimSpace(string(body))}
	}
	return body, nil
}

// lokiError is an answer that is no success.
type lokiError struct {
	status int
	body   string
}

func (e *lokiError) Error() string { return fmt.Sprintf("loki answers %d: %s", e.status, e.body) }
