package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// watched is an output of kubectl.
const watched = `{
    "type": "ADDED",
    "object": {"kind": "Event", "metadata": {"uid": "a", "resourceVersion": "1"}, "reason": "Unhealthy"}
}
{
    "type": "MODIFIED",
    "object": {"kind": "Event", "metadata": {"uid": "a", "resourceVersion": "2"}, "reason": "Unhealthy"}
}
{
    "type": "ADDED",
    "object": {"kind": "Event", "metadata": {"uid": "b", "resourceVersion": "3"}, "reason": "Preempted"}
}
{
    "type": "DELETED",
    "object": {"kind": "Event", "metadata": {"uid": "b", "resourceVersion": "4"}, "reason": "Preempted"}
}
`

func TestLedger(t *testing.T) {
	stored := func(uid, version string) entry { return entry{state: state{uid, version}} }
	for _, test := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"everything, and later states", []entry{stored("a", "1"), stored("a", "2"), stored("b", "3"), stored("c", "9")}, ""},
		{
			"a count bump is lacking",
			[]entry{stored("a", "2"), stored("b", "3")},
			"of 3 states that kubectl saw, 1 are not stored and 0 are stored more than once",
		},
		{
			"one is there twice",
			[]entry{stored("a", "1"), stored("a", "2"), stored("a", "2"), stored("b", "3")},
			"of 3 states that kubectl saw, 0 are not stored and 1 are stored more than once",
		},
		{"nothing", nil, "of 3 states that kubectl saw, 3 are not stored and 0 are stored more than once"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWitness()
			if err := w.read(strings.NewReader(watched)); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			seen, err := w.seen()
			if err != nil {
				t.Fatal(err)
			}
			if n := seen.preempted(); n != 1 {
				t.Errorf("%d preemptions, want 1", n)
			}
			got := ""
			if err := seen.compare(test.entries); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

func TestOwner(t *testing.T) {
	p := pod{"prod-metrics", "store-gateway-79b5894fc8-ksmm5"}
	if got, want := p.owner(), "prod-metrics/store-gateway"; got != want {
		t.Errorf("owner of %v: %s, want %s", p, got, want)
	}
}
