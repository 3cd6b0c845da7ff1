package cluster

import (
	"os"
	"testing"
)

// ForTest starts a cluster that ends with the test. An empty Dir is a folder
// that the test removes. If the test fails, it logs how each component's output
// ends.
func ForTest(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range c.kill() {
			if !t.Failed() {
				continue
			}
			if tail, err := readTail(p.logPath); err == nil || !os.IsNotExist(err) {
				t.Logf("%s ends with\n%s", p.logPath, tail)
			}
		}
	})
	return c
}
