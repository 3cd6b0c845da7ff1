//go:build e2e

package page

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/query/timeline"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// axe returns the script of axe-core.
func axe(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		cluster.SkipWithout(t, "npm", "npm is not installed, so the page's accessibility is not checked")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("axe", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		cluster.SkipWithout(t, "npm", fmt.Sprintf("npm cannot install axe-core, so the page's accessibility is not checked: %v\n%s", err, out))
	}
	b, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.CommandContext(ctx, "npm", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	cluster.CountRan(t, "npm", string(bytes.TrimSpace(version)))
	return string(b)
}

// axe-core finds no violation: in light and dark, in each part of the page.
func TestAccessible(t *testing.T) {
	script := axe(t)
	for name, tl := range map[string]*timeline.Timeline{"outage": outage(t), "hostile": hostile(), "empty": {Title: "nothing"}} {
		for _, theme := range []string{"light", "dark"} {
			t.Run(name+" "+theme, func(t *testing.T) {
				v := openPage(t, tl, 1280, 900, "theme="+theme)
				v.do(script)
				start := time.Now()
				check := func(part string) {
					t.Helper()
					violations := value[[]string](v, `axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations.flatMap((v) => v.nodes.map((n) => v.id + ' (' + v.help + '): ' + n.html.slice(0, 200) + ' ' + n.failureSummary)))`)
					t.Logf("%s: %.1f s", part, time.Since(start).Seconds())
					if len(violations) > 0 {
						t.Errorf("%s: %d violations, the first ones:\n%s", part, len(violations), strings.Join(violations[:min(len(violations), 3)], "\n"))
					}
				}
				check("overview")
				for _, tab := range []string{"preemptions", "workloads", "nodes", "reasons", "omissions", "story"} {
					v.do(fmt.Sprintf(`document.getElementById('tab-%s').click()`, tab))
					check(tab)
				}
				v.do(`document.getElementById('reason-menu').open = true`)
				check("reasons")
				v.do(`document.getElementById('reason-menu').open = false; document.querySelector('tr.line .row-button')?.click()`)
				check("a line of the story")
				v.do(`document.querySelector('tr[data-row] .row-button')?.click()`)
				check("details")
				v.do(`document.querySelector('.event summary')?.click()`)
				check("an Event")
			})
		}
	}
}
