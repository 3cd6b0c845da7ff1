//go:build e2e

package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// The demo checks by itself that what it shows is true.
func TestDemo(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), &out, false)
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
