//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/wait"
)

// A wrong setting or an unreachable Loki is logged in one line and makes hindsight unready.
// Once it is fixed, all Events arrive.
func TestLokiUnreachable(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{})
	client := newClient(t, c)
	open := cluster.LokiForTest(t, cluster.LokiOptions{})
	tenants := cluster.LokiForTest(t, cluster.LokiOptions{Auth: true})
	tenants.Tenant = "team-a"
	later := cluster.StoppedLokiForTest(t, cluster.LokiOptions{})

	// A proxy with an untrusted certificate, in front of Loki.
	target, err := url.Parse(open.URL())
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	front.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	front.StartTLS()
	t.Cleanup(front.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}

	for _, step := range []struct {
		name  string
		loki  *cluster.Loki
		wrong string // sink configuration
		log   string
		fix   func() (sink string)
	}{
		{
			"no tenant", tenants, lokiSink(tenants.URL(), ""), "set tenant_id",
			func() string { return lokiSink(tenants.URL(), ", tenant_id: team-a") },
		},
		{
			"a wrong path", open, lokiSink(open.URL()+"/wrong", ""), "check the path of the url",
			func() string { return lokiSink(open.URL(), "") },
		},
		{
			"a certificate of an unknown authority", open, lokiSink(front.URL, ""), "certificate signed by unknown authority",
			func() string { return lokiSink(front.URL, fmt.Sprintf(", tls_config: {ca_file: %q}", ca)) },
		},
		{
			"no server", later, lokiSink(later.URL(), ""), "connection refused",
			func() string {
				if err := later.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				return lokiSink(later.URL(), "")
			},
		},
	} {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			// Each step has its own journal and cluster label.
			label := strings.ReplaceAll(step.name, " ", "-")
			head := fmt.Sprintf("cluster: %s\njournal: {dir: %s}\ndrain_timeout: 1s\nsinks:\n", label, t.TempDir())
			ledger := newLedger()
			p := start(t, c.Kubeconfig(), head+step.wrong)
			mustCreate(t, ledger, client, newEvent("default", label+".", step.name))
			wait.Until(t, "the problem is logged", func() bool { return p.Logged(step.log) })
			wait.Until(t, "hindsight is unready with a reason", func() bool {
				status, body := p.get("/readyz")
				return status == 503 && strings.Contains(body, "sink loki: not delivering since") && strings.Contains(body, step.log)
			})
			if n := strings.Count(p.Log(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings, want one:\n%s", n, p.Log())
			}
			if code := p.terminate(); code != 0 { // after drain_timeout; the record is in the journal
				t.Errorf("exit code %d, want 0", code)
			}

			p = start(t, c.Kubeconfig(), head+step.fix())
			query := fmt.Sprintf(`{cluster=%q} |= %q`, label, step.name)
			wait.Until(t, "the record is in Loki", func() bool { return len(stored(t, step.loki, query)) == 1 })
			p.untilReady()
		})
	}
}
