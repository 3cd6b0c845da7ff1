package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// watched is what kubectl prints, indented as it does.
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
	entry := func(uid, version string) cluster.LokiEntry {
		return cluster.LokiEntry{Metadata: map[string]string{"event_uid": uid, "event_version": version}}
	}
	for _, test := range []struct {
		name    string
		entries []cluster.LokiEntry
		want    string
	}{
		{"everything, and what came later", []cluster.LokiEntry{entry("a", "1"), entry("a", "2"), entry("b", "3"), entry("c", "9")}, ""},
		{
			"a count bump is lacking",
			[]cluster.LokiEntry{entry("a", "2"), entry("b", "3")},
			"of 3 states that kubectl saw, loki lacks 1 and shows 0 more than once",
		},
		{
			"one is there twice",
			[]cluster.LokiEntry{entry("a", "1"), entry("a", "2"), entry("a", "2"), entry("b", "3")},
			"of 3 states that kubectl saw, loki lacks 0 and shows 1 more than once",
		},
		{"nothing", nil, "of 3 states that kubectl saw, loki lacks 3 and shows 0 more than once"},
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
