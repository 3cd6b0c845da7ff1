package audit

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A rule about fields that the API server's Event does not have explains a missing Event only as
// perhaps excluded, and only if its other conditions match.
func TestRulesAboutAttributes(t *testing.T) {
	for name, test := range map[string]struct {
		drop, match []string
		want        string
	}{
		"a drop rule that can match":              {[]string{`{team="red", reason="BackOff"}`}, nil, Undecided},
		"a drop rule that cannot match":           {[]string{`{team="red", reason="Pulled"}`}, nil, ""},
		"another drop rule matches":               {[]string{`{team="red"}`, `{reason="BackOff"}`}, nil, Dropped},
		"a match that can match":                  {nil, []string{`{team="red"}`}, Undecided},
		"a match that cannot match":               {nil, []string{`{team="red", reason="Pulled"}`}, NotMatched},
		"another match matches":                   {nil, []string{`{team="red"}`, `{reason="BackOff"}`}, ""},
		"the sink wants it, a drop rule may drop": {[]string{`{team="red"}`}, []string{`{reason="BackOff"}`}, Undecided},
	} {
		t.Run(name, func(t *testing.T) {
			parse := func(texts []string) (all []Selector) {
				for _, text := range texts {
					s, err := ParseSelector(text)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, s)
				}
				return all
			}
			var s state
			Rules{Drop: parse(test.drop), Match: parse(test.match)}.apply(&corev1.Event{Reason: "BackOff"}, &s)
			if s.reason != test.want {
				t.Errorf("got %q, want %q", s.reason, test.want)
			}
		})
	}
}
