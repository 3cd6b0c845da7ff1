package tally

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSummary(t *testing.T) {
	for name, c := range map[string]struct {
		entries []Entry
		want    string
	}{
		"nothing": {nil, "tests: none needed a program that is not built here"},
		"all": {
			[]Entry{
				{Program: "loki", Version: "3.7.8", Package: "/a", Test: "TestOne", Result: Ran},
				{Program: "promtail", Version: "3.6.0", Package: "/a", Test: "TestOne", Result: Ran},
				{Program: "loki", Version: "3.7.8", Package: "/a", Test: "TestOne", Result: Ran}, // a second Loki of the test
				{Program: "loki", Version: "3.7.8", Package: "/b", Test: "TestOne", Result: Ran},
			},
			"tests: 2 ran against loki 3.7.8, 0 skipped without it; 1 ran against promtail 3.6.0, 0 skipped without it",
		},
		"none": {
			[]Entry{
				{Program: "loki", Package: "/a", Test: "TestOne", Result: Skipped},
				{Program: "loki", Package: "/a", Test: "TestTwo", Result: Skipped},
				{Program: "loki", Package: "/a", Test: "TestThree", Result: Partly},
			},
			"tests: 0 ran against loki, 2 skipped without it, 1 ran without that part",
		},
		"required": {
			[]Entry{
				{Program: "loki", Package: "/a", Test: "TestOne", Result: Failed},
				{Program: "promtail", Package: "/a", Test: "TestTwo", Result: Skipped},
			},
			"tests: 0 ran against loki, 0 skipped without it, 1 failed for lack of it; 0 ran against promtail, 1 skipped without it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tally")
			t.Setenv(Variable, path)
			for _, e := range c.entries {
				if err := Append(e); err != nil {
					t.Fatal(err)
				}
			}
			var entries []Entry
			if f, err := os.Open(path); err == nil {
				defer f.Close()
				if entries, err = Read(f); err != nil {
					t.Fatal(err)
				}
			}
			if got := Summary(entries); got != c.want {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
		})
	}
}
