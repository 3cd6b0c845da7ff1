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

// tempDir returns a temporary folder. Unlike t.TempDir, its name does not have the test's
// name, which may have characters that a program treats as separators.
func tempDir(t testing.TB, pattern string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// endWith kills the component at the end of a test. If the test has failed, it logs the end of the
// component's output.
func (p *component) endWith(t testing.TB) {
	t.Cleanup(func() {
		p.kill()
		if !t.Failed() {
			return
		}
		if tail, err := readTail(p.logPath); err == nil {
			t.Logf("%s ends with\n%s", p.logPath, tail)
		}
	})
}
