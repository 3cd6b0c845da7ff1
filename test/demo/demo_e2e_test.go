//go:build e2e

package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// The demo checks its output itself.
func TestDemo(t *testing.T) {
	t.Run("files", func(t *testing.T) { show(t, false) })
	t.Run("Loki", func(t *testing.T) {
		cluster.NeedLoki(t)
		show(t, true)
	})
}

func show(t *testing.T, withLoki bool) {
	t.Helper()
	var out strings.Builder
	err := run(t.Context(), &out, withLoki, false)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
			t.Errorf("a line has %d columns: %s", n, line)
		}
	}
}
