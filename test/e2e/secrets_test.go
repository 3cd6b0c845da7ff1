//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// No credential is in any output of the program, on success or failure.
func TestNoSecretsInOutput(t *testing.T) {
	t.Parallel()
	api := serveEvents(t, []*corev1.Event{madeEvent(1, time.Now()), madeEvent(2, time.Now())})
	var pushes, wrong atomic.Int32
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "hindsight" || password != "geheim-password" {
			wrong.Add(1)
		}
		switch pushes.Add(1) {
		case 1:
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		case 2:
			http.Error(w, "bad gateway", http.StatusBadGateway)
		case 3:
			w.WriteHeader(http.StatusNoContent)
		default:
			http.Error(w, "entry too far behind, entry timestamp is: 2019-07-19T11:00:00Z, oldest acceptable timestamp is: 2026-01-01T00:00:00Z", http.StatusBadRequest)
		}
	}))
	defer gateway.Close()
	journal := t.TempDir() + "/journal"
	config := fmt.Sprintf(`
log: {level: debug}
cluster: e2e
journal: {dir: %s}
sinks:
  - name: inline
    loki:
      url: %s
      batch_wait: 100ms
      basic_auth: {username: hindsight, password: geheim-password}
      http_headers: {X-Token: {secrets: [geheim-header]}}
  - name: in-the-url
    loki: {url: "http://hindsight:geheim-url@127.0.0.1:1/loki/api/v1/push"}
  - name: bearer
    loki: {url: "http://127.0.0.1:1", authorization: {credentials: geheim-bearer}, proxy_url: "http://hindsight:geheim-proxy@127.0.0.1:1"}
`, journal, gateway.URL)
	p := startWith(t, api.Kubeconfig(), config, nil, &states{}, "--token", "geheim-token")
	wait.Until(t, "the gateway has answered", func() bool { return pushes.Load() > 3 })
	wait.Until(t, "the other sinks have failed", func() bool { return strings.Count(p.Log(), "send failed") >= 3 })

	written := map[string]string{"the log": p.Log()}
	for _, path := range []string{"/metrics", "/readyz", "/livez"} {
		_, written[path] = p.get(path)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	written["the log"] = p.Log()
	stdout, stderr, code := program.Run(t, program.Options{Args: []string{"check", "--config", p.ConfigPath}})
	if code != 0 {
		t.Errorf("check: exit code %d", code)
	}
	written["check"] = stdout + stderr
	files := 0
	if err := filepath.WalkDir(journal, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		written[path] = string(b)
		return err
	}); err != nil || files < 4 {
		t.Errorf("%d files of the journal, want a segment and cursors: %v", files, err)
	}
	for where, text := range written {
		for rest := text; ; {
			_, after, found := strings.Cut(rest, "geheim")
			if !found {
				break
			}
			t.Errorf("a secret is in %s: geheim%.20s", where, after)
			rest = after
		}
	}
	if wrong.Load() > 0 {
		t.Errorf("%d pushes without the password", wrong.Load())
	}
}
