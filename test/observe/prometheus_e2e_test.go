//go:build e2e

package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
)

func TestMain(m *testing.M) {
	os.Exit(program.Main(m))
}

// tool returns the path of a program that the nested module in tools names. The
// first call builds it, which takes some minutes. Prometheus needs to discover
// nothing here, and is built much faster without.
func tool(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", name)
	cmd.Dir = "tools"
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-tags=remove_all_sd")
	cmd.Stderr = os.Stderr
	path, err := cmd.Output()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	return strings.TrimSpace(string(path))
}

func TestPromtool(t *testing.T) {
	promtool := tool(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "hindsight.rules.yaml"},
		{"test", "rules", "hindsight.rules.test.yaml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = rulesDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// Every panel about Hindsight itself shows something, and every rule can be
// evaluated, in a real Prometheus that scrapes a Hindsight which leads.
func TestPrometheusQueries(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	l := cluster.LokiForTest(t, cluster.LokiOptions{})
	dir := t.TempDir()
	hindsight := program.ForTest(t, program.Options{Args: []string{"run", "--kubeconfig", c.Kubeconfig()}, Config: fmt.Sprintf(`cluster: observe
leader_election: {enabled: true, namespace: default, lease_duration: 60s, renew_deadline: 50s}
canary: {enabled: true, query_url: %q}
enrich: {workload: true}
journal: {dir: %q}
sinks:
  - {name: loki, loki: {url: %q}}
`, l.URL(), filepath.Join(dir, "journal"), l.URL())})
	address, err := hindsight.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	listen := freeAddress(t)
	rules, err := filepath.Abs(filepath.Join(rulesDir, "hindsight.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "prometheus.yaml"), fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: hindsight, static_configs: [{targets: [%q]}]}
`, rules, address))
	prometheus := startProcess(t, dir, "prometheus", tool(t, "prometheus"),
		"--config.file", filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path", filepath.Join(dir, "tsdb"),
		"--web.listen-address", listen)

	// Some scrapes of a leader, so that there are rates.
	await(t, hindsight, prometheus, func(ctx context.Context) error {
		found, err := instant(ctx, listen, `count_over_time((hindsight_lease_leader == 1)[5m:1s]) > 5 and on () hindsight_watch_last_contact_timestamp_seconds > 0`)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("no leader has been scraped yet")
		}
		return err
	})
	for _, q := range prometheusQueries(t) {
		isRule := !strings.Contains(q.where, "panel")
		if !isRule {
			// Series of zeros are hidden, and subqueries look at the last minutes.
			q.expr = strings.ReplaceAll(strings.TrimSuffix(q.expr, " > 0"), "[5m:15s]", "[5m:1s]")
		}
		// Before there was anything.
		if found, err := instantAt(t.Context(), listen, q.expr, "1000"); err != nil || len(found) > 0 && !strings.Contains(q.expr, "absent(") {
			t.Errorf("%s: %s finds %s where there is nothing: %v", q.where, q.expr, found, err)
		}
		found, err := instant(t.Context(), listen, q.expr)
		switch {
		case err != nil:
			t.Errorf("%s: %s: %v", q.where, q.expr, err)
		case len(found) == 0 && !isRule:
			t.Errorf("%s: %s finds nothing", q.where, q.expr)
		case len(found) > 0 && isRule:
			t.Errorf("%s fires on a healthy program: %v", q.where, found)
		}
	}
	var state struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	await(t, hindsight, prometheus, func(ctx context.Context) error {
		if err := get(ctx, listen, "/api/v1/rules", nil, &state); err != nil {
			return err
		}
		for _, g := range state.Groups {
			for _, r := range g.Rules {
				if r.Health == "unknown" {
					return fmt.Errorf("%s has not been evaluated yet", r.Name)
				}
			}
		}
		return nil
	})
	for _, g := range state.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
}

// await waits until a condition holds while two processes run.
func await(t *testing.T, hindsight *program.Program, prometheus *cluster.Process, holds func(context.Context) error) {
	t.Helper()
	if err := prometheus.WaitReady(t.Context(), holds); err != nil {
		t.Fatalf("%v\nhindsight's log ends with\n%s", err, hindsight.LogTail())
	}
}

// instant returns the result of an instant query.
func instant(ctx context.Context, address, expr string) (found []json.RawMessage, err error) {
	return instantAt(ctx, address, expr, "")
}

// instantAt returns the result at a time in seconds; empty: now.
func instantAt(ctx context.Context, address, expr, at string) (found []json.RawMessage, err error) {
	var data struct{ Result []json.RawMessage }
	err = get(ctx, address, "/api/v1/query", url.Values{"query": {expr}, "time": {at}}, &data)
	return data.Result, err
}

func get(ctx context.Context, address, path string, values url.Values, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path+"?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Error string
		Data  any
	}{Data: data}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %s: %s: %w", path, resp.Status, body, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, answer.Error)
	}
	return nil
}

func startProcess(t *testing.T, dir, name, binary string, args ...string) *cluster.Process {
	t.Helper()
	p, err := cluster.StartProcess(name, filepath.Join(dir, name+".log"), binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		_ = p.Terminate(ctx)
	})
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
