// Package observe tests dashboards and alerts (deploy/grafana, deploy/alerts) and the documents
// about operation and migration (docs/operations.md, docs/migrating.md).
package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/hindsight-events/hindsight/internal/app"
	"github.com/hindsight-events/hindsight/internal/canary"
	"github.com/hindsight-events/hindsight/internal/config"
	"github.com/hindsight-events/hindsight/test/fakeapi"
	"github.com/hindsight-events/hindsight/test/wait"
)

// programMetrics returns the names and labels of Hindsight's own metrics, from a running program.
func programMetrics(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for last, configuration := range map[string]string{
		// A candidate has no watch, and one that waits for metadata has none yet.
		"hindsight_watch_relists_total": "sinks: [{name: out, stdout: {}}]\n",
		"hindsight_enrich_misses_total": "enrich: {workload: true}\nsinks: [{name: out, stdout: {}}]\n",
		"hindsight_lease_leader":        "leader_election: {enabled: true}\nsinks: [{name: out, stdout: {}}]\n",
	} {
		maps.Copy(all, scrape(t, configuration, last))
	}
	reg := prometheus.NewRegistry()
	if _, err := canary.New(canary.Options{Namespace: "hindsight", Loki: &canary.Loki{}, Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		all[family.GetName()] = []string{}
	}
	return all
}

// scrape runs Hindsight until it shows a metric. The API server does not work.
func scrape(t *testing.T, configuration, last string) map[string][]string {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte("listen: 127.0.0.1:0\n"+configuration))
	if err != nil {
		t.Fatal(err)
	}
	api := fakeapi.New(t)
	api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		fakeapi.Fail(w, r, http.StatusInternalServerError, "etcd is down")
		return true
	})
	addresses := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- app.Run(ctx, app.Options{
			Config: c, Kubernetes: api.Config(), OwnNamespace: "hindsight", Stdout: io.Discard,
			Log: slog.New(addressHandler{slog.DiscardHandler, addresses}),
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("hindsight ended with %v", err)
		}
	}()
	var address string
	select {
	case address = <-addresses:
	case err := <-ended:
		t.Fatalf("hindsight ended with %v before it listened", err)
	}
	wait.Until(t, "the metrics have "+last, func() bool {
		return metricsAt(t, "http://"+address+"/metrics")[last] != nil
	})
	// That scrape may have read the other metrics before they had values.
	return metricsAt(t, "http://"+address+"/metrics")
}

// addressHandler extracts the address of the metrics from the log.
type addressHandler struct {
	slog.Handler
	addresses chan<- string
}

func (h addressHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h addressHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h addressHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "serving metrics and probes" {
		r.Attrs(func(a slog.Attr) bool {
			h.addresses <- a.Value.String()
			return false
		})
	}
	return nil
}

func metricsAt(t *testing.T, url string) map[string][]string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for name, family := range families {
		if !strings.HasPrefix(name, "hindsight_") {
			continue
		}
		found[name] = []string{}
		for _, pair := range family.GetMetric()[0].GetLabel() {
			found[name] = append(found[name], pair.GetName())
		}
	}
	return found
}

// docs/operations.md has a table of all metrics.
func TestMetricsAreInTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(hindsight_[a-z_]+)(?:\\{([a-z, ]+)\\})?` \\|").FindAllStringSubmatch(string(docs), -1) {
		if documented[m[1]] != nil {
			t.Errorf("docs/operations.md has %s twice", m[1])
		}
		documented[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	metrics := programMetrics(t)
	for name, labels := range metrics {
		in, ok := documented[name]
		slices.Sort(in)
		slices.Sort(labels)
		switch {
		case !ok:
			t.Errorf("docs/operations.md does not have %s%v", name, labels)
		case fmt.Sprint(in) != fmt.Sprint(labels):
			t.Errorf("docs/operations.md has %s with the labels %v, it has %v", name, in, labels)
		}
	}
	for name := range documented {
		if metrics[name] == nil {
			t.Errorf("docs/operations.md has %s, which does not exist", name)
		}
	}
	for _, name := range regexp.MustCompile(`hindsight_[a-z_]+[a-z]`).FindAllString(string(docs), -1) {
		if metrics[name] == nil {
			t.Errorf("docs/operations.md mentions %s, which does not exist", name)
		}
	}
}
