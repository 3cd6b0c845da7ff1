package app

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/hindsight-events/hindsight/enrich"
	"github.com/hindsight-events/hindsight/test/wait"
)

type forbidden struct{}

// RoundTrip responds as an API server that permits nothing.
func (forbidden) RoundTrip(r *http.Request) (*http.Response, error) {
	const status = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"forbidden","reason":"Forbidden","code":403}`
	return &http.Response{
		StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(status)), Request: r,
	}, nil
}

// A reload with the same key enrich keeps the metadata that was read. Without the rights, the process
// is not ready, and says once in the log what to grant.
func TestEnrichmentFollowsTheConfiguration(t *testing.T) {
	var log bytes.Buffer
	const workload, labels = "enrich: {workload: true}\n", "enrich: {workload: true, labels: {app: app}}\n"
	o := Options{
		Config: parse(t, stdoutSink), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Kubernetes: &rest.Config{Host: "http://api", Transport: forbidden{}},
	}
	p := newProcess(t, o, nil)
	p.enrichMetrics = enrich.NewMetrics(nil)
	p.current.Store(&generation{pipeline: &pipeline{}})
	defer p.stopEnrichment()
	set := func(text string) *enrichment {
		t.Helper()
		if err := p.setEnrichment(t.Context(), parse(t, text+stdoutSink)); err != nil {
			t.Fatal(err)
		}
		return p.enrichment.Load()
	}
	if e := set(""); e != nil {
		t.Error("metadata is read without the key enrich")
	}
	first := set(workload)
	if second := set(workload); second != first {
		t.Error("a reload of the same key reads the metadata again")
	}
	wait.Until(t, "the process is not ready", func() bool {
		return strings.Contains(strings.Join(p.ready(), "\n"), "grant get, list and watch on pods")
	})
	for _, problem := range p.ready() {
		if !strings.HasPrefix(problem, "enrich: ") || strings.Contains(problem, "\n") {
			t.Errorf("%q is not one line about enrich", problem)
		}
	}
	if set(labels) == first {
		t.Error("a changed key has no effect")
	}
	if e := set(""); e != nil || len(p.ready()) > 0 {
		t.Errorf("without the key, enrichment is %v and the problems are %q", e, p.ready())
	}
	if n := strings.Count(log.String(), "resource=pods"); n < 1 || n > 2 {
		t.Errorf("%d log lines about pods, want one for each configuration:\n%s", n, log.String())
	}
}
