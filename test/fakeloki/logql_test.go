package fakeloki

import (
	"strings"
	"testing"
)

// The fake rejects patterns that Loki does not evaluate as written, so that tests with them fail.
func TestForgottenAlternatives(t *testing.T) {
	for _, stage := range []string{`type=~"Warning|"`, `type=~"|Warning"`, `type=~""`, `type!~"Warning|"`} {
		if _, err := parseQuery(`{a="b"} | ` + stage); err == nil || !strings.Contains(err.Error(), "forgets the empty alternative") {
			t.Errorf("%s: %v", stage, err)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("{a=\"b\", c=~`d`} |= \"x\" != `y` | e=\"f\" or g!~\"h\" | logfmt i=\"j\" | json k=\"l.m\" | line_format \"{{.n}}\" | keep o, p")
	f.Add(`{a="b"} | c="d" and`)
	f.Add(`{a="\q"}`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseQuery(text)
		if err == nil {
			q.apply(Entry{Line: "name=x", Labels: map[string]string{"a": "b"}})
		}
	})
}
