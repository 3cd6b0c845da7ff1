//go:build e2e

package main

import "testing"

// No module in the build list of any go.mod is under a forbidden licence or without one, also
// where nothing is built from it: those who scan a repository see all of them. It downloads
// several hundred megabytes of modules the first time.
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
