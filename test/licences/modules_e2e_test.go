//go:build e2e

package main

import "testing"

// Each module in the build list of any go.mod has a licence that is not forbidden, even if nothing
// is built from the module: licence scanners examine all of them. The first run downloads several
// hundred megabytes of modules.
func TestBuildLists(t *testing.T) {
	paths, err := findFiles(root, "go.mod")
	if err != nil || len(paths) < 2 {
		t.Fatalf("found %q: %v", paths, err)
	}
	checked := map[string]bool{}
	for _, path := range paths {
		n, problems := checkBuildList(path, checked)
		for _, err := range problems {
			t.Error(err)
		}
		t.Logf("%s: %d modules", path, n)
	}
}
