//go:build e2e

// Package audit runs hindsight audit on Events that hindsight run exported from a real API server
// to a real Loki and to files, and on copies with faults.
package audit

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/test/program"
)

func TestMain(m *testing.M) {
	os.Exit(program.Main(m, "-race"))
}

// result is the output of an audit; the fields are those of its JSON.
type result struct {
	code           int
	stdout, stderr string

	Compared, Found, Missing, Repeated, Mistimed, Altered int
	Explained                                             map[string]int
	Findings                                              []finding
}

type finding struct {
	Finding, Why, Detail, Namespace, Name, UID, Version string
}

// audit runs hindsight audit to its end.
func audit(t *testing.T, args ...string) (r result) {
	t.Helper()
	r.stdout, r.stderr, r.code = program.Run(t, program.Options{Args: append([]string{"audit"}, args...)})
	if strings.HasPrefix(r.stdout, "{") {
		if err := json.Unmarshal([]byte(r.stdout), &r); err != nil {
			t.Fatalf("%v: %s", err, r.stdout)
		}
	}
	return r
}

// want checks the exit code and the number of findings of each kind.
func (r result) want(t *testing.T, code int, findings map[string]int) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s", r.code, code, r.stderr)
	}
	got := map[string]int{}
	for _, f := range r.Findings {
		got[f.Finding]++
	}
	explained := 0
	for _, n := range r.Explained {
		explained += n
	}
	for kind, n := range map[string]int{
		"missing": r.Missing, "repeated": r.Repeated, "mistimed": r.Mistimed, "altered": r.Altered, "explained": explained,
	} {
		if got[kind] != n || n != findings[kind] {
			t.Errorf("%s: %d counted, %d listed, want %d", kind, n, got[kind], findings[kind])
		}
	}
	if t.Failed() {
		t.Logf("%s%s", r.stdout[:min(len(r.stdout), 4000)], r.stderr)
	}
}

// finds checks the finding of an Event.
func (r result) finds(t *testing.T, kind string, e *corev1.Event, detail string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Finding == kind && f.UID == string(e.UID) {
			if f.Version != e.ResourceVersion || f.Name != e.Name || f.Namespace != e.Namespace || !strings.Contains(f.Detail, detail) {
				t.Errorf("%+v, want version %s and %q", f, e.ResourceVersion, detail)
			}
			return
		}
	}
	t.Errorf("no finding that %s/%s, version %s, is %s", e.Namespace, e.Name, e.ResourceVersion, kind)
}

// ship starts hindsight run until the end of the test.
func ship(t *testing.T, kubeconfig, config string) {
	t.Helper()
	program.ForTest(t, program.Options{Args: []string{"run", "--kubeconfig", kubeconfig, "--config", config}})
}
