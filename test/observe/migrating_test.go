package observe

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/hindsight-events/hindsight/internal/config"
)

// Every converted example can be used as it is, and docs/migrating.md speaks of
// those that there are.
func TestConvertedExamples(t *testing.T) {
	const dir = "../../examples/migrating"
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples in %s: %v", dir, err)
	}
	docs, err := os.ReadFile("../../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	var mentioned []string
	for _, m := range regexp.MustCompile(`\(\.\./examples/migrating/([^)]+)\)`).FindAllStringSubmatch(string(docs), -1) {
		mentioned = append(mentioned, filepath.Join(dir, m[1]))
	}
	for _, path := range paths {
		if _, err := config.Load(path); err != nil {
			t.Error(err)
		}
		if !slices.Contains(mentioned, path) {
			t.Errorf("docs/migrating.md does not mention %s", path)
		}
	}
	for _, path := range mentioned {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("docs/migrating.md mentions %s: %v", path, err)
		}
	}
}
