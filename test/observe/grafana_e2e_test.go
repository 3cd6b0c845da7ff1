//go:build e2e

package observe

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The dashboards are what their source makes of Grafana's Foundation SDK, whose
// types are Grafana's schema.
func TestDashboardsAreUpToDate(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not installed; it is only needed to change the dashboards")
	}
	source := filepath.Join(dashboardsDir, "generate")
	dir := t.TempDir()
	generate := filepath.Join(dir, "generate")
	if err := copyDir(generate, source); err != nil {
		t.Fatal(err)
	}
	npm := func(args ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "npm", args...)
		cmd.Dir = generate
		return cmd.CombinedOutput()
	}
	if out, err := npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"); err != nil {
		t.Skipf("the generator's packages cannot be had, so the dashboards are NOT checked: npm ci: %v\n%s", err, out)
	}
	if out, err := npm("run", "generate"); err != nil {
		t.Fatalf("npm run generate: %v\n%s", err, out)
	}
	for _, name := range []string{"events.json", "hindsight.json"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dashboardsDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("deploy/grafana/%s is not what its source makes; run\n\tnpm ci && npm run generate\nin deploy/grafana/generate", name)
		}
	}
}

// copyDir copies a module without what npm puts there.
func copyDir(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.Name() == "node_modules":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		data, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(filepath.Join(to, name), data, 0o644))
	})
}
