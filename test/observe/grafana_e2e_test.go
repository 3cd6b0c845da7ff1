//go:build e2e

package observe

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
	for _, args := range [][]string{
		{"ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"},
		{"run", "generate"},
	} {
		cmd := exec.CommandContext(t.Context(), "npm", args...)
		cmd.Dir = generate
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
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
